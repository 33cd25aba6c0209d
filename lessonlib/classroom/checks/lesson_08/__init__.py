"""Lesson 08, the capstone: one text with a cache, drafts with a cache, and the engine made of both."""

from .decode import DECODE
from .engine import ENGINE
from .speculate import SPECULATE

EXERCISES = (DECODE, SPECULATE, ENGINE)
