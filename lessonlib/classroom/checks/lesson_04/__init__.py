"""Lesson 04, batching: pad prompts, batch continuously, read a log, hand out blocks."""

from .allocator import BLOCK_ALLOCATOR
from .batcher import CONTINUOUS_BATCHER
from .latencies import LATENCIES
from .pad_left import PAD_LEFT

EXERCISES = (PAD_LEFT, CONTINUOUS_BATCHER, LATENCIES, BLOCK_ALLOCATOR)
