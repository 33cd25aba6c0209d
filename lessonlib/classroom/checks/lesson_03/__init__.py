"""Lesson 03, quantization: a scale a row, four bits in groups, and a codebook."""

from .dequantize_nf4 import DEQUANTIZE_NF4
from .quantize_int4 import QUANTIZE_INT4
from .quantize_int8 import QUANTIZE_INT8

EXERCISES = (QUANTIZE_INT8, QUANTIZE_INT4, DEQUANTIZE_NF4)
