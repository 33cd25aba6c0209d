"""Results on the disk, one file each, by what decides them (see ``fingerprint``): written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lessonlib import files

Record = dict[str, Any]


class Store:
    """Records by key in a folder. Any number of processes may use it at the same time."""

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, key: str) -> Record | None:
        """The record of this key; None where there is none that can be read."""
        try:
            record = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def put(self, key: str, record: Record, anew: bool = False) -> None:
        """Keep a record. One that is there already says the same, and stays unless it was asked for ``anew``."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if anew or not self.get(key):
            files.replace(path, json.dumps(record).encode(), durable=False)  # what is lost is run again

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
