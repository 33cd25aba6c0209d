"""Everything that can go wrong, by name. Each message is one sentence: what happened and what to do."""

from __future__ import annotations


class EngineError(ValueError):
    """Base of every error the engine raises on purpose; its text is fit to be shown to a beginner."""


class EmptyPrompt(EngineError):
    """A prompt without a single token: there is nothing to predict the next token from."""


class PromptTooLong(EngineError):
    """A prompt that leaves no room for an answer in the model's context."""


class TokenOutOfRange(EngineError):
    """A token id that the vocabulary does not have."""


class BadParameter(EngineError):
    """A setting with a value that has no meaning, such as a negative temperature."""


class UnknownModel(EngineError):
    """A model name that is neither shipped, nor a folder, nor reachable on the hub."""


class BrokenCheckpoint(EngineError):
    """A model folder with missing, damaged or misshapen parts."""


class UnsafeCheckpoint(EngineError):
    """A checkpoint in pickle format: loading it could run anybody's code."""


class TokenizerMismatch(EngineError):
    """A tokenizer that can produce ids the model does not know."""


class CacheFull(EngineError):
    """More tokens than the KV cache was made for."""


class NoCompiler(EngineError):
    """No C++ compiler here, or none that can compile the kernels of the compiled path."""
