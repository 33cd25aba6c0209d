"""Lesson 05, speculative decoding: verify guesses, judge drawn ones, foresee the speed, choose how many."""

from .accept import ACCEPT
from .choose_k import CHOOSE_K
from .estimate import ESTIMATE
from .verify import VERIFY

EXERCISES = (VERIFY, ACCEPT, ESTIMATE, CHOOSE_K)
