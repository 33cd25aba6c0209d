"""A small scenario on the engine's own BlockPool and PagedCache, recorded event by event: what paged_blocks() shows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lessonlib.engine import BlockPool, DenseCache, ModelConfig, PagedCache, Span
from lessonlib.engine.blocks import chain

BLOCKS, BLOCK_SIZE = 8, 4
LONGEST = 24  # tokens that a slab for one sequence would have to have room for
RULES = "You are a guide . Answer briefly ."

# The smallest cache there is: a token's number is stored as its key, so that memory can be read as words.
CONFIG = ModelConfig(
    vocab_size=1,
    hidden_size=2,
    intermediate_size=1,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=2,
    max_position_embeddings=LONGEST,
)


@dataclass
class _Text:
    """A sequence: its tokens so far, its block table, and how many tokens are in the cache."""

    ids: list[int]
    table: list[int] = field(default_factory=list)
    computed: int = 0


class Recorder:
    """Does to a BlockPool and a PagedCache what a scheduler does, one event at a time, and writes down each.

    ``events`` holds plain JSON: what happened, in one sentence, and how tables, blocks and memory stand after it.
    """

    def __init__(self, num_blocks: int = BLOCKS, block_size: int = BLOCK_SIZE):
        self.pool = BlockPool(num_blocks, block_size)
        self.cache = PagedCache(CONFIG, num_blocks, block_size)
        self.live: dict[str, _Text] = {}
        self.events: list[dict[str, Any]] = []
        self._words = [""]  # by token id; memory that was never written holds 0
        self._hashes: set[bytes] = set()

    def arrive(self, name: str, text: str) -> None:
        """A prompt comes: find its beginning among the blocks that are there, take blocks for the rest, run it."""
        size = self.pool.block_size
        one = self.live[name] = _Text([self._id(word) for word in text.split()])
        shared, lost = self._find(one)
        found = "nothing that begins alike is stored"
        if shared:
            found = f"the first {len(shared) * size} are found in {blocks(shared)}"
            found += f"; the next {size} were evicted" if lost else ""
        self._event("arrive", name, shared, f"{name} arrives with {len(one.ids)} tokens: {found}.")
        missing, free = self.pool.blocks_for(len(one.ids)) - len(shared), self.pool.available(shared)
        if missing <= free:
            return self._begin(name, shared)
        needs = f"{missing} block{'s' if missing > 1 else ''} more"
        self._event("wait", name, [], f"{name} needs {needs}, and {free or 'none'} can be taken: it waits.")

    def admit(self, name: str) -> None:
        """A sequence that had to wait gets its turn."""
        self._begin(name, self._find(self.live[name])[0])

    def say(self, name: str, text: str) -> None:
        """Tokens are generated: each goes into the next place, in a block that is the sequence's own."""
        one, size = self.live[name], self.pool.block_size
        words = text.split()
        while words:
            index, place = divmod(one.computed, size)
            if index == len(one.table):
                self._take(name, one.computed + 1, f"{name} needs room for its next token and takes")
            elif pair := self.pool.own(one.table, index):
                self.cache.copy([pair])
                (old, new), others = pair, " and ".join(self._holders(pair[0]))
                which = f"block {old}, which {others} hold{'' if ' ' in others else 's'} too"
                sentence = f"{name} must write into {which}: it gets a copy, block {new} (copy-on-write)."
                self._event("copy", name, pair, sentence)
            now, words = words[: size - place], words[size - place :]
            one.ids += [self._id(word) for word in now]
            self._run(name, f"{name} generates “{' '.join(now)}”, written to block {one.table[index]}.")

    def fork(self, name: str, new: str) -> None:
        """A second continuation of the same tokens: every block is shared, the last one too."""
        one = self.live[name]
        self.live[new] = _Text(list(one.ids), self.pool.share(one.table), one.computed)
        sentence = (
            f"{name} is to be answered twice: {new}, the second answer, shares its blocks; no copy yet."
        )
        self._event("fork", new, one.table, sentence)

    def finish(self, name: str) -> None:
        """A sequence is done: blocks that nobody else holds are free, and full ones keep their content for now."""
        table = list(self.live[name].table)
        self.pool.release(self.live.pop(name).table)
        gone = [block for block in table if self.pool.references[block] == 0]
        kept = [block for block in gone if block in self._findable()]
        rest = [block for block in gone if block not in kept]
        ends = []
        if kept:
            ends.append(f"{blocks(kept)} stay{'' if kept[1:] else 's'} for whoever begins alike")
        if rest:
            ends.append(f"{blocks(rest)} {'are' if rest[1:] else 'is'} free")
        said = ", ".join(ends) or "others still hold all its blocks"
        self._event("finish", name, gone, f"{name} is done: {said}.")

    def _find(self, one: _Text) -> tuple[list[int], bool]:
        """Blocks of the longest beginning that is stored, and whether what comes next once was."""
        most = (len(one.ids) - 1) // self.pool.block_size  # the last token runs in any case
        hashes = self._chain(one)[:most]
        found = self.pool.find(hashes)
        return found, len(found) < len(hashes) and hashes[len(found)] in self._hashes

    def _begin(self, name: str, shared: Sequence[int]) -> None:
        one = self.live[name]
        if shared:
            one.table = self.pool.share(shared)
            one.computed = len(shared) * self.pool.block_size
            sentence = f"{name} holds {blocks(shared)} too: {one.computed} tokens need not run again."
            self._event("share", name, shared, sentence)
        left = len(one.ids) - one.computed
        self._take(name, len(one.ids), f"For the {'other ' if shared else ''}{left} tokens {name} takes")
        self._run(name, f"{left} tokens of {name} are run: their keys and values are written.")

    def _take(self, name: str, tokens: int, sentence: str) -> None:
        one, before, kept = self.live[name], len(self.live[name].table), self._findable()
        grown = self.pool.grow(one.table, tokens)
        assert grown, "the scenario has no room here"
        taken = one.table[before:]
        evicted = [block for block in taken if block in kept]
        what = f": what {numbers(evicted)} kept is forgotten (evicted)" if evicted else ""
        self._event("evict" if evicted else "take", name, taken, f"{sentence} {blocks(taken)}{what}.")

    def _run(self, name: str, sentence: str) -> None:
        """Put the tokens that are not in the cache yet through it, and make full blocks findable."""
        one, size = self.live[name], self.pool.block_size
        start, count = one.computed, len(one.ids) - one.computed
        self.cache.plan([Span(one.table, start, count)])
        self.cache.begin(1, count, None, torch.device("cpu"))
        stored = (
            torch.tensor(one.ids[start:], dtype=torch.float32).view(1, 1, count, 1).expand(1, 1, count, 2)
        )
        self.cache.attend(0, stored, stored, stored)
        self.cache.end()
        one.computed += count
        self._event("run", name, one.table[start // size :], sentence)
        before = self._findable()
        for block, its_hash in zip(one.table, self._chain(one), strict=False):
            self.pool.name(block, its_hash)
            self._hashes.add(its_hash)
        if new := sorted(self._findable() - before):
            be, them = ("are", "them") if new[1:] else ("is", "it")
            full = f"{blocks(new).capitalize()} {be} full"
            self._event("name", name, new, f"{full}: a hash of the text up to there makes {them} findable.")

    def _event(self, kind: str, name: str, changed: Sequence[int], sentence: str) -> None:
        self.events.append(
            {
                "kind": kind,
                "name": name,
                "changed": list(changed),
                "sentence": sentence,
                "sequences": [
                    {
                        "name": other,
                        "tokens": len(one.ids),
                        "computed": one.computed,
                        "table": list(one.table),
                        "text": " ".join(self._words[token] for token in one.ids),
                    }
                    for other, one in self.live.items()
                ],
                "blocks": list(self._blocks()),
                "paged": self._paged(),
                "slabs": self._slabs(),
            }
        )

    def _blocks(self) -> Iterator[dict[str, Any]]:
        probe = copy.deepcopy(self.pool)
        order = [probe.take() for _ in range(probe.free)]  # in which free blocks would be taken
        filled, findable = self._filled(), self._findable()
        memory = self.cache.keys[0, :, 0, 0].tolist()
        for block in range(self.pool.num_blocks):
            slots = range(block * self.pool.block_size, (block + 1) * self.pool.block_size)
            holders = self._holders(block)
            kept = not holders and block in findable
            yield {
                "holders": holders,
                "state": "shared" if len(holders) > 1 else "held" if holders else "kept" if kept else "free",
                "words": [self._words[int(memory[slot])] if kept or slot in filled else "" for slot in slots],
                "turn": order.index(block) + 1 if block in order else None,
            }

    def _paged(self) -> dict[str, int]:
        held = sum(count > 0 for count in self.pool.references) * self.pool.block_size
        return {"held": held, "filled": len(self._filled())}

    def _slabs(self) -> dict[str, int]:
        """The same sequences in a DenseCache: a slab for the longest each, shared by none."""
        running = [one for one in self.live.values() if one.table]
        held = DenseCache(CONFIG, len(running), LONGEST).keys[0, :, 0, :, 0].numel() if running else 0
        return {"held": held, "filled": sum(one.computed for one in running)}

    def _filled(self) -> set[int]:
        """Slots that hold a token of somebody."""
        size = self.pool.block_size
        return {
            one.table[p // size] * size + p % size for one in self.live.values() for p in range(one.computed)
        }

    def _holders(self, block: int) -> list[str]:
        return [name for name, one in self.live.items() if block in one.table]

    def _findable(self) -> set[int]:
        return {block for its_hash in self._hashes for block in self.pool.find([its_hash])}

    def _chain(self, one: _Text) -> list[bytes]:
        return chain(one.ids, self.pool.block_size)

    def _id(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return self._words.index(word)


def numbers(items: Sequence[int]) -> str:
    """3; 3 and 4; 3, 4 and 7."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def blocks(items: Sequence[int]) -> str:
    """The same with the word: block 3, blocks 3 and 4."""
    return f"block{'s' if items[1:] else ''} {numbers(items)}"


def record() -> list[dict[str, Any]]:
    """Run the scenario: a shared beginning, two answers to one question, eviction, a wait."""
    run = Recorder()
    run.arrive("A", f"{RULES} Where is Rome ?")
    run.say("A", "In Italy .")
    run.arrive("B", f"{RULES} Where is Oslo ?")
    run.say("B", "In")
    run.fork("B", "C")
    run.say("B", "the far north")
    run.say("C", "Norway .")
    run.finish("A")
    run.arrive("D", f"{RULES} Where is Rome ? In short ?")
    run.finish("B")
    run.finish("C")
    run.arrive("E", "Tell me a long story about a cat who went to sea and came home .")
    run.arrive("F", f"{RULES} Where is Oslo ? In short ?")
    run.finish("D")
    run.admit("F")
    return run.events
