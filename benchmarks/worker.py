"""One engine, one process: the measured side of a benchmark, and the handle that the measuring side holds.

The child (``python -m benchmarks.worker ours``) reads one JSON request a line and answers with one JSON line. An idle
child waits for its next line and costs nothing, so that engines with different environments, thread pools and tempers
can take turns. This module imports neither torch nor anything of ours: a peer's environment need not have it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers" / "bin" / "python"  # `make peers` makes it
ENGINES = {  # name: the module of its adapter, and the Python that can import it
    "ours": ("benchmarks.engine_ours", Path(sys.executable)),
    "transformers": ("benchmarks.engine_transformers", Path(sys.executable)),
    "llama.cpp": ("benchmarks.engine_llama_cpp", PEERS),
}


class Ask(NamedTuple):
    """One request of a workload: when it arrives (seconds after the start), its prompt, and how many tokens it gets."""

    arrival: float
    prompt: Sequence[int]
    new_tokens: int


class Answer(NamedTuple):
    """What a request got: its tokens, and when each came (seconds after the start)."""

    tokens: list[int]
    times: list[float]


class Engine(Protocol):
    """What an adapter offers. Greedy, and nothing ends a request but its number of tokens."""

    def load(self, key: str, folder: str, variant: str, **limits: Any) -> dict[str, Any]:
        """Load the model in ``folder`` as ``variant`` under the name ``key``; returns facts, such as its bytes."""
        ...

    def serve(self, key: str, asks: list[Ask], sequences: int) -> list[Answer]:
        """Serve a workload: each request not before it arrives, at most ``sequences`` of them at a time."""
        ...

    def unload(self, key: str) -> None: ...


class WorkerFailed(RuntimeError):
    """The child could not do what it was asked; the text is its last line."""


class Worker:
    """The measuring side's handle on a child. Use it as a context manager."""

    def __init__(self, engine: str, threads: int = 2):
        module, python = ENGINES[engine]
        if not python.exists():
            raise WorkerFailed(f"{engine} is not installed beside the course; make peers does that.")
        # The same threads for everybody, whichever library counts them.
        threaded = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        # The adapter finds this package by name, but not the course's environment.
        environment = os.environ | threaded | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.worker", module, str(threads)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **named: Any) -> Any:
        """Run a method of the adapter in the child. Raises WorkerFailed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"method": method, "named": named}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(f"the process ended with status {self._process.wait(timeout=30)}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["result"]

    def serve(self, key: str, asks: Sequence[Ask], sequences: int = 1) -> list[Answer]:
        answers = self.call("serve", key=key, asks=asks, sequences=sequences)
        return [Answer(*answer) for answer in answers]

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()  # the child's loop ends with its input
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(module: str, threads: int) -> None:
    """The child: answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not stand among the answers
    engine = importlib.import_module(module).Engine(threads)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": getattr(engine, request["method"])(**request["named"])}
        except Exception as error:  # a peer that cannot do something is a finding, not a crash
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
