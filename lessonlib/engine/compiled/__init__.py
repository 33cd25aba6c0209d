"""The optional compiled path: one forward pass in C++, compiled on this machine when it is first wanted.

``kernels.cpp`` computes, ``pack.py`` lays out the weights, ``build.py`` compiles, ``transformer.py`` calls.
"""

from .build import find_compiler
from .transformer import CompiledTransformer, compile_model

__all__ = ["CompiledTransformer", "compile_model", "find_compiler"]
