"""Lesson 06, deployment: what it costs, what comes over the wire, and where the load becomes too much."""

from .break_even import BREAK_EVEN
from .load_curve import LOAD_CURVE
from .read_stream import READ_STREAM

EXERCISES = (BREAK_EVEN, READ_STREAM, LOAD_CURVE)
