"""Lesson 07, security: a line drawn, a token limit, a hidden size stolen, a thief noticed, a stream filtered."""

from .choose_threshold import CHOOSE_THRESHOLD
from .hidden_size import HIDDEN_SIZE
from .stream_filter import STREAM_FILTER
from .sweep_detector import SWEEP_DETECTOR
from .token_limiter import TOKEN_LIMITER

EXERCISES = (CHOOSE_THRESHOLD, TOKEN_LIMITER, HIDDEN_SIZE, SWEEP_DETECTOR, STREAM_FILTER)
