"""Which block of KV memory belongs to whom: reference counts, prefix reuse, eviction. No tensors here.

KV memory is cut into blocks of ``block_size`` tokens, and a sequence owns a *block table*: the list of its blocks in
order, wherever they lie (PagedAttention, Kwon et al. 2023, arXiv:2309.06180 §4). A full block is named by a
hash of everything up to its end, so that a later sequence with the same beginning finds it again.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from .config import check_whole


def chain(tokens: Sequence[int], block_size: int, salt: str = "", known: Sequence[bytes] = ()) -> list[bytes]:
    """Names of the full blocks of ``tokens``: each hashes its own tokens and the name of the block before it.

    salt: what only one tenant has; with another salt nothing is shared, so nobody can find out by timing what others
    asked. known: names of the first blocks, worked out before. A cryptographic hash, since a forged collision would
    serve one user's prompt to another; and a salt cannot pass for the name of a block.
    """
    names = list(known)
    for start in range(len(names) * block_size, len(tokens) - block_size + 1, block_size):
        before = b"block" + names[-1] if names else b"salt" + salt.encode(errors="surrogatepass")
        content = array("q", tokens[start : start + block_size]).tobytes()
        names.append(hashlib.blake2b(content, key=hashlib.sha256(before).digest(), digest_size=16).digest())
    return names


class BlockPool:
    """A fixed number of blocks, lent out by reference count.

    ``references[block]`` counts the tables that hold a block. A block nobody holds is free, but keeps its content, and
    its name, until it is needed: the least recently used goes first.
    """

    def __init__(self, num_blocks: int, block_size: int = 16, enable_prefix_caching: bool = True):
        check_whole(num_blocks=num_blocks, block_size=block_size)
        self.num_blocks, self.block_size = num_blocks, block_size
        self.enable_prefix_caching = enable_prefix_caching
        self.reset()

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens fill."""
        return -(-tokens // self.block_size)

    def find(self, names: Sequence[bytes]) -> list[int]:
        """The blocks of the longest beginning of ``names`` that is still here. Nothing is reserved yet."""
        found: list[int] = []
        for name in names:
            if (block := self._named.get(name)) is None:
                break
            found.append(block)
        return found

    def available(self, shared: Sequence[int] = ()) -> int:
        """Blocks that can be taken once the ``shared`` ones are held."""
        return self.free - sum(block in self._free for block in shared)

    def share(self, blocks: Sequence[int]) -> list[int]:
        """Hold blocks that exist, for one more table; returns them as the beginning of that table."""
        for block in blocks:
            self.references[block] += 1
            self._free.pop(block, None)
        return list(blocks)

    def take(self) -> int:
        """A block for new content; what it held before is forgotten. The caller has seen that one is free."""
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self.references[block] = 1
        return block

    def grow(self, table: list[int], tokens: int) -> bool:
        """Make ``table`` long enough for ``tokens`` tokens. False, and nothing taken, when too few blocks are free."""
        missing = self.blocks_for(tokens) - len(table)
        if missing > self.free:
            return False
        table.extend(self.take() for _ in range(missing))
        return True

    def own(self, table: list[int], index: int) -> tuple[int, int] | None:
        """Before writing into ``table[index]``: replace a block that others hold too by a fresh one (copy-on-write).

        Returns (old, new): the content has to be copied; None when the block was the table's own. Needs a free block.
        """
        old = table[index]
        if self.references[old] == 1:
            self._forget(old)  # its content changes: the name would lie
            return None
        self.references[old] -= 1
        table[index] = self.take()
        return old, table[index]

    def name(self, block: int, name: bytes) -> None:
        """The block is full and computed: let others find it. The first one of a name stays the one."""
        if self.enable_prefix_caching and self._names[block] is None and name not in self._named:
            self._names[block] = name
            self._named[name] = block

    def release(self, table: list[int]) -> None:
        """Give back every block of a table, and empty it."""
        for block in reversed(
            table
        ):  # the end of a prefix is evicted before its beginning, which more can share
            self.references[block] -= 1
            if self.references[block] == 0:
                self._free[block] = None
                if self._names[block] is None:  # nothing to find here again: take it first
                    self._free.move_to_end(block, last=False)
        table.clear()

    def reset(self) -> None:
        """Be as good as new: every block is free and nameless, and the tables made before mean nothing."""
        self.references = [0] * self.num_blocks
        self._free = OrderedDict.fromkeys(range(self.num_blocks))  # in the order in which they will be taken
        self._names: list[bytes | None] = [None] * self.num_blocks
        self._named: dict[bytes, int] = {}

    def _forget(self, block: int) -> None:
        name = self._names[block]
        if name is not None:
            del self._named[name]
            self._names[block] = None
