"""Stand-ins for the model that notice every KV slot that is stale, missing, doubled or somebody else's.

``Ledger`` runs a scheduler over plain lists: fast enough for thousands of traces. ``Recall`` is a model over the real
caches: its next token is an exact integer function of everything that attention let it see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import torch

from lessonlib.engine import ModelConfig, SamplingParams
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.blocks import BlockPool, chain
from lessonlib.engine.errors import CacheFull
from lessonlib.engine.generate import advance
from lessonlib.engine.model import Output
from lessonlib.engine.paged_cache import PagedCache
from lessonlib.engine.sampling import Choice
from lessonlib.engine.scheduler import Request, Scheduler, Slot


def params(max_tokens: int, **settings) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_tokens": max_tokens, **settings})


def check_pool(pool: BlockPool, tables: Sequence[Sequence[int]] = ()) -> None:
    """References add up to the tables, what nobody holds is free and nothing else, names lead back and forth."""
    held = Counter(block for table in tables for block in table)
    assert pool.references == [held[block] for block in range(pool.num_blocks)]
    assert set(pool._free) == set(range(pool.num_blocks)) - set(held)
    assert pool.free == len(pool._free)
    assert {block: name for block, name in enumerate(pool._names) if name is not None} == {
        block: name for name, block in pool._named.items()
    }
    assert all(len(set(table)) == len(table) for table in tables)


def check_queues(scheduler: Scheduler) -> None:
    """Nobody is in two queues, both are in order, and blocks are where they are accounted for."""
    running, waiting = scheduler.running, scheduler.waiting
    everyone = [*running, *waiting]
    assert len({id(request) for request in everyone}) == len(everyone) == scheduler.unfinished
    for queue in (running, waiting):
        assert [request.rank for request in queue] == sorted(request.rank for request in queue)
    assert not any(request.table or request.computed for request in waiting)
    assert all(request.finish_reason is None for request in everyone)
    check_pool(scheduler.pool, [request.table for request in running])


# ---------------------------------------------------------------- a model of lists


def beginning(salt: str) -> int:
    return int.from_bytes(salt.encode(), "big") + 1


def after(identity: int, token: int) -> int:
    """Identity of a beginning with one more token. (Hashes of tuples of ints are the same in every process.)"""
    return hash((identity, token))


def continuation(prompt: Sequence[int], count: int, salt: str, vocab: int) -> list[int]:
    """What the ledger's model says after a prompt, worked out without any memory."""
    identity, said = beginning(salt), []
    for token in prompt:
        identity = after(identity, token)
    for _ in range(count):
        said.append(identity % vocab)
        identity = after(identity, said[-1])
    return said


class Ledger:
    """Runs requests over lists: every KV slot holds the identity of the whole beginning it was computed for.

    The salt is part of it, so that sharing across salts shows. Before a token comes out, every slot behind it is read
    and must hold what belongs there; after every event, all that the scheduler holds is counted.
    """

    def __init__(self, scheduler: Scheduler, random: Random, vocab: int = 3, guesses_right: float = 0.6):
        self.scheduler, self.pool, self.random, self.vocab = scheduler, scheduler.pool, random, vocab
        self.guesses_right = guesses_right
        self.memory: list[int | None] = [None] * (self.pool.num_blocks * self.pool.block_size)
        self.requests: list[Request] = []
        self.first_tokens: list[Request] = []  # in the order in which they came
        self.named: dict[int, tuple[list[int], str]] = {}  # identity -> tokens and salt that led to it
        self.steps = self.processed = 0

    def add(self, request: Request) -> bool:
        """Queue it; False when it was refused, which must be exactly when it can never fit."""
        longest = len(request.prompt) + request.params.max_tokens - 1
        if self.scheduler.context is not None:
            longest = min(longest, self.scheduler.context - 1)
        fits = -(-longest // self.pool.block_size) <= self.pool.num_blocks
        try:
            self.scheduler.add(request)
        except CacheFull:
            assert not fits
            return False
        assert fits
        self.requests.append(request)
        self.check()
        return True

    def abort(self, request: Request) -> None:
        only_its = [block for block in request.table if self.pool.references[block] == 1]
        free = self.pool.free
        self.scheduler.abort(request)
        assert (request.finish_reason, request.table) == ("abort", [])
        assert self.pool.free == free + len(only_its)
        self.check()

    def step(self) -> list[Slot]:
        held = {id(request) for request in self.scheduler.running}
        free = self.pool.free
        slots = self.scheduler.schedule()
        self.check_decision(slots, held, free)
        self.steps += 1
        self.processed += sum(slot.count for slot in slots)
        for old, new in self.scheduler.copies:
            for source, target in zip(self.places(old), self.places(new), strict=True):
                self.memory[target] = self.memory[source]
        texts = [self._write(slot) for slot in slots]
        for slot, (identities, guess) in zip(slots, texts, strict=True):
            self._finish(slot, identities, guess)
        self.check()
        return slots

    def places(self, block: int) -> range:
        return range(block * self.pool.block_size, (block + 1) * self.pool.block_size)

    def check_decision(self, slots: Sequence[Slot], held: set[int], free: int) -> None:
        scheduler, size = self.scheduler, self.pool.block_size
        check_queues(scheduler)
        assert sum(slot.count for slot in slots) <= scheduler.max_num_batched_tokens
        assert len(slots) <= len(scheduler.running) <= scheduler.max_num_seqs
        assert len({id(slot.request) for slot in slots}) == len(slots)
        assert slots or not scheduler.unfinished  # somebody always gets on
        written: Counter[int] = Counter()
        for request, start, count, drafts in slots:
            assert any(request is other for other in scheduler.running)
            assert start == request.computed < request.known
            assert count >= 1 + drafts
            assert not drafts or start == request.known - 1  # guesses are for those who decode
            assert start + count <= request.known + drafts
            assert start + count <= len(request.prompt) + request.params.max_tokens - 1 or not drafts
            if scheduler.context is not None:
                assert start + count < scheduler.context
            blocks = request.table[start // size : -(-(start + count) // size)]
            assert len(blocks) == -(-(start + count) // size) - start // size  # there is room for all
            written.update(blocks)
            assert all(
                self.pool.references[block] == 1 for block in blocks
            )  # nobody else reads what is written
        assert max(written.values(), default=1) == 1
        if free == self.pool.num_blocks:
            assert not held

    def check(self) -> None:
        check_queues(self.scheduler)
        for block, name in enumerate(self.pool._names):
            if name is not None:
                identity = self.memory[self.places(block)[-1]]
                assert identity is not None
                tokens, salt = self.named[identity]
                assert name == chain(tokens, self.pool.block_size, salt)[-1]

    def run(self, limit: int) -> None:
        """To the end, in a bounded number of steps; then nothing is held."""
        for _ in range(limit):
            if not self.scheduler.unfinished:
                break
            self.step()
        assert not self.scheduler.unfinished
        check_pool(self.pool)
        for request in self.requests:
            count = len(request.output)
            assert request.output == continuation(request.prompt, count, request.salt, self.vocab)
            if request.finish_reason == "length":
                known = len(request.prompt) + request.params.max_tokens
                assert request.known == min(known, self.scheduler.context or known)
            else:
                assert request.finish_reason == "abort"

    def _slot(self, request: Request, position: int) -> int:
        size = self.pool.block_size
        return request.table[position // size] * size + position % size

    def _write(self, slot: Slot) -> tuple[list[int], list[int]]:
        """Identities of all beginnings up to the end of the slot, and the drafts that were guessed."""
        request, start, count, drafts = slot
        tokens = request.ids[: start + count]
        identity, identities = beginning(request.salt), []
        for token in tokens:
            identity = after(identity, token)
            identities.append(identity)
            if len(identities) % self.pool.block_size == 0:
                self.named.setdefault(identity, (tokens[: len(identities)], request.salt))
        guess: list[int] = []
        for _ in range(drafts):
            right = identity % self.vocab
            wrong = (right + 1) % self.vocab
            guess.append(right if self.random.random() < self.guesses_right else wrong)
            identity = after(identity, guess[-1])
            identities.append(identity)
            if len(identities) % self.pool.block_size == 0:
                self.named.setdefault(identity, ([*tokens, *guess], request.salt))
        for position in range(start, start + count):
            self.memory[self._slot(request, position)] = identities[position]
        return identities, guess

    def _finish(self, slot: Slot, identities: list[int], guess: list[int]) -> None:
        request, start, count, drafts = slot
        seen = [self.memory[self._slot(request, position)] for position in range(start + count)]
        assert seen == identities[: start + count]
        assert slot.reaches_end == (start + count - drafts == request.known)
        stood = 0
        if slot.reaches_end:
            known = request.known
            for place in range(drafts + 1):
                if not request.output:
                    self.first_tokens.append(request)
                token = identities[known + place - 1] % self.vocab
                advance(request, Choice(token), (), self.scheduler.context or 10**9)
                stood += 1
                if request.finish_reason is not None or guess[place : place + 1] != [token]:
                    break
        self.scheduler.complete(slot, rejected=drafts - max(0, stood - 1))
        if request.finish_reason is not None:
            self.scheduler.retire(request)


def ledger(random: Random | None = None, guesses_right: float = 0.6, vocab: int = 3, **settings) -> Ledger:
    pool = BlockPool(
        settings.pop("num_blocks", 16), settings.pop("block_size", 4), settings.pop("prefix_caching", True)
    )
    return Ledger(Scheduler(pool, **settings), random or Random(0), vocab, guesses_right)


# ---------------------------------------------------------------- a model of integers over the real caches

PRIME = 1_000_003


def scramble(layer: int, part: int, token, position, state):
    """A number below PRIME that looks like noise; ints or tensors of them."""
    x = (token * 7919 + position * 104_729 + state * 997 + layer * 31_337 + part * 7577 + 5) % PRIME
    return x * x % PRIME * x % PRIME


class Recall:
    """Stands where the model stood. All scores are equal, so attention gives the mean of the visible values, which are
    integers: times their number it is their exact sum. The second layer's values depend on the first layer's sum, so
    each of its slots stands for the whole beginning. Keys equal values, which the tests compare.
    """

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(
        self, vocab: int = 7, context: int = 64, window: int | None = None, window_layers=None, eos=()
    ):
        self.config = ModelConfig(
            vocab_size=vocab,
            hidden_size=2,
            intermediate_size=2,
            num_hidden_layers=2,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=2,
            max_position_embeddings=context,
            sliding_window=window,
            window_layers=window_layers,
            eos_token_ids=eos,
        )
        self.passes: list[int] = []  # tokens of each

    def __call__(self, ids, cache=None, lengths=None, last_only=False, at=None) -> Output:
        batch, new = ids.shape
        self.passes.append(batch * new)
        assert int(ids.min()) >= 0 and int(ids.max()) < self.config.vocab_size
        positions = cache.begin(batch, new, lengths, ids.device)
        state = torch.zeros_like(ids)
        for layer in range(2):
            x = torch.stack([scramble(layer, part, ids, positions, state) for part in (0, 1)], -1)
            x = x.to(torch.float64)[:, None]
            seen = cache.attend(layer, torch.zeros_like(x), x, x)[:, 0]
            window = self.config.window(layer)
            visible = positions + 1 if window is None else (positions + 1).clamp_max(window)
            total = seen * visible[..., None]
            if lengths is None:  # padding may see anything
                assert (total - total.round()).abs().max() < 1e-3
            state = total.round().long().sum(-1)
        cache.end()
        said = scramble(2, 0, ids, positions, state) % self.config.vocab_size
        if last_only:
            last = torch.tensor([max(n, 1) - 1 for n in lengths])
            said = said[torch.arange(batch), last][:, None]
        elif at is not None:
            said = said.flatten()[at][None]
        return Output(torch.nn.functional.one_hot(said, self.config.vocab_size).float())

    def alone(self, prompt: Sequence[int], max_tokens: int, ignore_eos: bool = False) -> list[int]:
        """The same answer by the definition, in plain integers."""
        tokens, said = list(prompt), []
        while len(said) < max_tokens and len(tokens) < self.config.max_position_embeddings:
            states = [0] * len(tokens)
            for layer in range(2):
                window = self.config.window(layer) or len(tokens)
                values = [
                    sum(scramble(layer, part, token, p, state) for part in (0, 1))
                    for p, (token, state) in enumerate(zip(tokens, states, strict=True))
                ]
                states = [sum(values[max(0, p + 1 - window) : p + 1]) for p in range(len(tokens))]
            token = scramble(2, 0, tokens[-1], len(tokens) - 1, states[-1]) % self.config.vocab_size
            tokens.append(token)
            said.append(token)
            if token in self.config.eos_token_ids and not ignore_eos:
                break
        return said


def batcher(model, speculator=None, **settings) -> ContinuousBatcher:
    """A continuous batcher over real caches; settings as those of LLM."""
    pool = BlockPool(
        settings.pop("num_blocks", 16), settings.pop("block_size", 4), settings.pop("prefix_caching", True)
    )
    quantization = settings.pop("quantization", None)
    cache = PagedCache(
        model.config, pool.num_blocks, pool.block_size, model.dtype, model.device, quantization
    )
    if quantization is None:  # what nobody wrote must never be seen
        for part in (cache.keys, cache.values):
            part.fill_(123_457)
    scheduler = Scheduler(pool, context=model.config.max_position_embeddings, **settings)
    return ContinuousBatcher(model, cache, scheduler, speculator)


def drain(engine, limit: int = 5000, on_token=None) -> None:
    """Steps until nothing is unfinished."""
    for _ in range(limit):
        if not engine.unfinished:
            return
        engine.step(on_token)
    raise AssertionError("the engine does not come to an end")


def any_engine(random: Random, **kind):
    model = Recall(vocab=random.choice([2, 3, 7]), context=random.choice([12, 24, 48]), **kind)
    return batcher(
        model,
        num_blocks=random.choice([1, 2, 4, 6, 9, 30]),
        block_size=random.choice([1, 2, 3, 4]),
        prefix_caching=random.random() < 0.7,
        max_num_seqs=random.choice([1, 2, 3, 8]),
        max_num_batched_tokens=random.choice([1, 2, 5, 11, 100]),
        policy=random.choice(["fcfs", "priority"]),
    )


def any_group(random: Random, engine, old: list[Request]) -> list[Request]:
    vocab, context = engine.model.config.vocab_size, engine.model.config.max_position_embeddings
    size, room = engine.cache.block_size, engine.cache.num_blocks * engine.cache.block_size
    length = min(random.choice([1, size, 2 * size, random.randint(1, 12)]), room, context - 1)
    prompt = [random.randrange(vocab) if random.random() < 0.3 else 1 for _ in range(length)]
    if old and random.random() < 0.5:
        prompt = (random.choice(old).ids[:length] + prompt)[:length]
    how = params(random.randint(1, min(15, room - length + 1)), ignore_eos=random.random() < 0.5)
    group: list[Request] = []
    for _ in range(random.choice([1, 1, 2, 3])):
        leader = group[0] if group else None
        group.append(Request(list(prompt), how, leader=leader, priority=random.randint(0, 2)))
    return group


def expected(engine, request: Request) -> list[int]:
    return engine.model.alone(request.prompt, request.params.max_tokens, request.params.ignore_eos)
