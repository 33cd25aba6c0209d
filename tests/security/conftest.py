"""Threads that get in each other's way."""

from __future__ import annotations

import threading
import time
from random import Random

import pytest


@pytest.fixture
def hasty():
    """Threads that may change places after any instruction of the limiter, and often do."""
    random = Random(1)

    def trace(frame, event, _):
        if not frame.f_code.co_filename.endswith(("_limiter.py", "admission.py")):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and random.random() < 0.1:
            time.sleep(0)
        return trace

    threading.settrace(trace)
    yield
    threading.settrace(None)  # type: ignore[arg-type]
