"""llama.cpp through llama-cpp-python's bindings of its C interface: the peer with the fastest CPU kernels.

Needs `.venv-peers` (``make peers``) and nothing of ours: it reads the GGUF file that ``lesson export`` writes. Batches
are filled as llama.cpp's own server fills them: one token for each running sequence, then prompts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as lib
import numpy as np

BATCH = 2048  # tokens a call takes; llama.cpp cuts them into pieces of 512 by itself
FILE_TYPES = {"q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0}


@lib.llama_log_callback
def _quiet(level: int, text: bytes, user: Any) -> None:
    pass


class Model:
    """A GGUF file, loaded, with a context for ``sequences`` sequences of ``length`` tokens.

    ``exact`` computes attention in float32; llama.cpp's own choice, and what is measured, is float16.
    """

    def __init__(self, path: str, threads: int, length: int, sequences: int, exact: bool):
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {path}")
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.n_batch = length * sequences, sequences, BATCH
        params.n_threads = params.n_threads_batch = threads
        if exact:
            params.type_k = params.type_v = lib.GGML_TYPE_F32
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = lib.llama_init_from_model(self.model, params)
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self.sequences = sequences
        self.batch = lib.llama_batch_init(BATCH, 0, 1)

    def close(self) -> None:
        lib.llama_batch_free(self.batch)
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)

    def forget(self, sequence: int = -1) -> None:
        lib.llama_memory_seq_rm(lib.llama_get_memory(self.context), sequence, -1, -1)

    def start(self) -> None:
        self.batch.n_tokens = 0

    def put(self, token: int, position: int, sequence: int, wanted: bool) -> int:
        """Add a token to the batch; returns its place, where its logits will be found if they are wanted."""
        at = self.batch.n_tokens
        self.batch.token[at], self.batch.pos[at] = token, position
        self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, sequence
        self.batch.logits[at] = wanted
        self.batch.n_tokens = at + 1
        return at

    def run(self) -> None:
        if status := lib.llama_decode(self.context, self.batch):
            raise RuntimeError(f"llama_decode failed with status {status}")

    def logits(self, at: int) -> np.ndarray:
        """Logits (vocab,) of one place in the batch; a view, valid until the next run."""
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(self.context, at), (self.vocab_size,))


@dataclass
class _Running:
    """A request that has a sequence of its own, and how many of its tokens the KV cache holds."""

    index: int
    sequence: int
    ids: list[int]
    end: int
    held: int = 0
    times: list[float] = field(default_factory=list)


class Engine:
    """The adapter; see ``benchmarks.worker.Engine``."""

    def __init__(self, threads: int):
        lib.llama_log_set(_quiet, None)
        lib.llama_backend_init()
        self.threads = threads
        self.models: dict[str, Model] = {}

    def about(self) -> dict[str, str]:
        return {"llama-cpp-python": lib.__version__, "compiled for": lib.llama_print_system_info().decode()}

    def quantize(self, source: str, target: str, variant: str) -> None:
        """llama.cpp's own quantizer, with the choices its users get (Q6_K for the embeddings of Q4_0)."""
        params = lib.llama_model_quantize_default_params()
        params.ftype, params.nthread = FILE_TYPES[variant], self.threads
        if lib.llama_model_quantize(source.encode(), target.encode(), params):
            raise RuntimeError(f"llama.cpp could not quantize {source} to {variant}")

    def load(
        self,
        key: str,
        folder: str,
        variant: str,
        length: int = 1024,
        sequences: int = 1,
        exact: bool = False,
    ) -> dict[str, Any]:
        """``folder``: here, the GGUF file; its own types say the variant."""
        self.models[key] = model = Model(folder, self.threads, length, sequences, exact)
        return {"weight_bytes": lib.llama_model_size(model.model)}

    def unload(self, key: str) -> None:
        self.models.pop(key).close()

    def serve(
        self, key: str, asks: Sequence[Sequence[Any]], sequences: int
    ) -> list[tuple[list[int], list[float]]]:
        model = self.models[key]
        model.forget()
        waiting = sorted(range(len(asks)), key=lambda i: (asks[i][0], i))
        idle = list(range(min(sequences, model.sequences)))
        running: list[_Running] = []
        answers: dict[int, tuple[list[int], list[float]]] = {}
        start = time.perf_counter()
        while waiting or running:
            now = time.perf_counter() - start
            while waiting and idle and asks[waiting[0]][0] <= now:
                i = waiting.pop(0)
                _, prompt, new_tokens = asks[i]
                running.append(_Running(i, idle.pop(), list(prompt), len(prompt) + new_tokens))
            if not running:
                time.sleep(max(0.0, asks[waiting[0]][0] - now))
                continue
            for request, token in self._step(model, running):
                request.ids.append(token)
                request.times.append(time.perf_counter() - start)
                if len(request.ids) == request.end:
                    new_tokens = request.ids[len(asks[request.index][1]) :]
                    answers[request.index] = (new_tokens, request.times)
                    model.forget(request.sequence)
                    idle.append(request.sequence)
            running = [request for request in running if request.index not in answers]
        return [answers[i] for i in range(len(asks))]

    def _step(self, model: Model, running: list[_Running]) -> list[tuple[_Running, int]]:
        """One call of llama_decode; the requests whose known tokens are all in get their next one."""
        model.start()
        ends = []
        for request in sorted(running, key=lambda r: len(r.ids) - r.held):  # decodes first: nobody stalls
            count = min(len(request.ids) - request.held, BATCH - model.batch.n_tokens)
            for position in range(request.held, request.held + count):
                last = position == len(request.ids) - 1
                at = model.put(request.ids[position], position, request.sequence, last)
                if last:
                    ends.append((request, at))
            request.held += count
        model.run()
        return [(request, int(model.logits(at).argmax())) for request, at in ends]

    def surprise(self, key: str, ids: Sequence[int]) -> float:
        """Nats that the tokens after the first cost."""
        logits = self._logits(key, ids[:-1]).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]).sum())

    def _logits(self, key: str, ids: Sequence[int]) -> np.ndarray:
        model = self.models[key]
        model.forget()
        model.start()
        places = [model.put(token, i, 0, True) for i, token in enumerate(ids)]
        model.run()
        return np.stack([model.logits(at) for at in places])

    # What the tests of `lesson export` ask.

    def score(self, key: str, ids: Sequence[int], path: str) -> None:
        """Write the logits (len(ids), vocab) of one sequence to a NumPy file."""
        np.save(path, self._logits(key, ids))

    def tokenize(self, key: str, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        """Ids of each text; ``special``: text that spells a special token becomes that token."""
        vocab = self.models[key].vocab
        found = []
        for text in texts:
            data = text.encode()
            ids = (lib.llama_token * (len(data) + 2))()
            found.append(ids[: lib.llama_tokenize(vocab, data, len(data), ids, len(ids), True, special)])
        return found

    def describe(self, key: str) -> dict[str, Any]:
        """The chat template, and the tokens at which llama.cpp ends an answer."""
        model = self.models[key]
        ends = [i for i in range(model.vocab_size) if lib.llama_vocab_is_eog(model.vocab, i)]
        template = lib.llama_model_chat_template(model.model, None)
        return {"ends": ends, "template": template.decode() if template else None}
