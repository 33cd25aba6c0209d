"""Structured logs: one JSON object a line. What is asked and answered is never in them, nor is a key."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGERS = ("lessonlib.serving", "lessonlib.security", "uvicorn.error")
requests = logging.getLogger("lessonlib.serving.requests")


class JsonLines(logging.Formatter):
    """A record as a line: time, level, message, whatever ``extra={"fields": {…}}`` brings, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # ASCII: nothing a client sends can begin a new line


def to_stream(stream: TextIO = sys.stderr, level: int = logging.INFO) -> logging.Handler:
    """Send this room's logs, the guards', and uvicorn's complaints, to a stream as JSON lines; returns the handler."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING if name == "uvicorn.error" else level)
        logger.propagate = False
    return handler
