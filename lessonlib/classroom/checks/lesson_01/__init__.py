"""Lesson 01, generation: draw a token, run the loop, count its work."""

from .count_work import COUNT_WORK
from .generate import GENERATE
from .sample import SAMPLE

EXERCISES = (SAMPLE, GENERATE, COUNT_WORK)
