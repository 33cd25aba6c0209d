"""Blocks: names of beginnings, reference counts, and who is evicted first."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine.blocks import BlockPool, chain
from lessonlib.engine.errors import BadParameter

from .conftest import QUIET, refuses
from .fakes import check_pool

TOKENS = st.lists(st.integers(0, 2), max_size=12)


@QUIET
@given(TOKENS, TOKENS, st.integers(1, 4), st.sampled_from(["", "a", "b"]), st.sampled_from(["", "a", "b"]))
def test_a_name_stands_for_everything_up_to_its_end_and_for_the_salt(one, two, size, salt, other):
    names, others = chain(one, size, salt), chain(two, size, other)
    assert len(names) == len(one) // size
    for i, name in enumerate(names):
        for j, another in enumerate(others):
            same = (one[: (i + 1) * size], salt) == (two[: (j + 1) * size], other)
            assert (name == another) == same


def test_a_salt_cannot_pass_for_a_block():
    """Else whoever knows the name of another's block could go on behind it."""
    first = next(name for i in range(100_000) if _is_text(name := chain([i], 1)[0]))
    tokens = [next(i for i in range(100_000) if chain([i], 1)[0] == first), 7]
    assert chain([7], 1, salt=first.decode()) != chain(tokens, 1)[1:]
    assert chain([7], 1, salt="\ud800") != chain([7], 1)  # not even a lone surrogate stops it


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@QUIET
@given(TOKENS, st.integers(1, 4), st.integers(0, 12))
def test_names_can_be_worked_out_piece_by_piece(tokens, size, cut):
    known = chain(tokens[:cut], size, "salt")
    kept = list(known)
    assert chain(tokens, size, "salt", known) == chain(tokens, size, "salt")
    assert known == kept  # what was handed in stays as it was


def test_large_ids_are_not_cut():
    contents = [[1, 0], [0, 1], [256, 0], [2**16, 0], [2**32, 0], [2**32 + 1, 0], [1, 2**32], [2**40, 0]]
    assert len({chain(tokens, 2)[0] for tokens in contents}) == len(contents)


class Shelf:
    """The pool by its definition, as slow as it likes: each block has a list of holders and a time of release."""

    def __init__(self, blocks: int):
        self.holders: list[list[int]] = [[] for _ in range(blocks)]
        self.names: list[bytes | None] = [None] * blocks
        self.released: list[float] = list(range(-blocks, 0))  # the order in which they are taken
        self.clock = 0.0

    @property
    def free(self) -> list[int]:
        free = [block for block, holders in enumerate(self.holders) if not holders]
        return sorted(free, key=lambda block: self.released[block])

    def find(self, names: list[bytes]) -> list[int]:
        found = []
        for name in names:
            if name not in self.names:
                break
            found.append(self.names.index(name))
        return found

    def take(self, holder: int) -> int:
        block = self.free[0]
        self.names[block] = None
        self.holders[block].append(holder)
        return block

    def release(self, holder: int, table: list[int]) -> None:
        for block in reversed(table):
            self.holders[block].remove(holder)
            if not self.holders[block]:
                self.clock += 1
                # What can be found again is taken last; what cannot, first, and the latest of it before the others.
                self.released[block] = self.clock if self.names[block] else -1000 - self.clock


@pytest.mark.parametrize("seed", range(60))
def test_any_lending_and_giving_back_is_as_defined(seed):
    random = Random(seed)
    blocks, size = random.randint(1, 9), random.randint(1, 3)
    pool, shelf = BlockPool(blocks, size), Shelf(blocks)
    tables: dict[int, list[int]] = {}
    names: dict[int, list[bytes]] = {}
    for holder in range(150):
        kind = random.random()
        if tables and kind < 0.35:
            gone = random.choice(list(tables))
            shelf.release(gone, tables[gone])
            pool.release(tables[gone])
            assert tables.pop(gone) == []
        elif tables and kind < 0.5:
            writer = random.choice(list(tables))
            index = random.randrange(len(tables[writer]))
            old = tables[writer][index]
            shared = len(shelf.holders[old]) > 1
            if shared and not pool.free:
                continue
            pair = pool.own(tables[writer], index)
            assert (pair is not None) == shared
            if pair:
                new = shelf.take(writer)
                shelf.holders[old].remove(writer)
                assert pair == (old, new) and tables[writer][index] == new
            else:
                shelf.names[old] = None
            names[writer] = names[writer][:index]
        elif tables and kind < 0.65:
            named = random.choice(list(tables))
            for block, name in zip(tables[named], names[named], strict=False):
                if random.random() < 0.7:
                    pool.name(block, name)
                    if shelf.names[block] is None and name not in shelf.names:
                        shelf.names[block] = name
        else:
            tokens = [random.randint(0, 1) for _ in range(random.randint(1, 4 * size))]
            wanted = chain(tokens, size)
            found = pool.find(wanted)
            assert found == shelf.find(wanted)
            needed = -(-len(tokens) // size) - len(found)
            enough = needed <= len([block for block in shelf.free if block not in found])
            assert (needed <= pool.available(found)) == enough
            if not enough:
                continue
            tables[holder], names[holder] = pool.share(found), wanted
            for block in found:
                shelf.holders[block].append(holder)
            assert pool.grow(tables[holder], len(tokens))
            assert tables[holder][len(found) :] == [shelf.take(holder) for _ in range(needed)]
        check_pool(pool, list(tables.values()))
        assert pool._names == shelf.names
        assert list(pool._free) == shelf.free


def named_table(pool: BlockPool, tokens: list[int]) -> list[int]:
    table: list[int] = []
    assert pool.grow(table, len(tokens))
    for block, name in zip(table, chain(tokens, pool.block_size), strict=False):
        pool.name(block, name)
    return table


def test_the_least_recently_used_beginning_goes_first_and_its_end_before_its_start():
    pool = BlockPool(6, 1)
    old, young = named_table(pool, [1, 2]), named_table(pool, [3, 4])
    first, second = list(old), list(young)
    pool.release(young)
    pool.release(old)
    # Used again, so the youngest now; what nobody ever wrote goes before all of them.
    pool.release(pool.share(pool.find(chain([3, 4], 1))))
    assert [pool.take() for _ in range(6)] == [4, 5, first[1], first[0], second[1], second[0]]
    assert pool.find(chain([1, 2], 1)) == pool.find(chain([3, 4], 1)) == []


def test_what_cannot_be_found_again_is_taken_before_what_can():
    pool = BlockPool(4, 2)
    table = named_table(pool, [1, 2, 3])  # a full block, and half a one
    full, half = table
    other = named_table(pool, [5, 6])
    pool.release(other)
    pool.release(table)
    assert pool.take() == half
    assert pool.find(chain([1, 2, 3], 2)) == [full]


def test_a_beginning_is_found_up_to_its_first_gap():
    pool = BlockPool(4, 1)
    names = chain([1, 2, 3], 1)
    pool.release(named_table(pool, [1, 2, 3]))
    assert len(pool.find(names)) == 3
    table = pool.share(pool.find(names)[:1])
    assert pool.own(table, 0) is None  # written into: it is no longer what it was called
    assert pool.find(names) == []
    assert len(pool.find(chain([1], 1))) == 0


def test_growing_takes_all_or_nothing():
    pool = BlockPool(3, 4)
    one: list[int] = []
    assert pool.grow(one, 5) and len(one) == 2
    two: list[int] = []
    assert not pool.grow(two, 5)
    assert (two, pool.free) == ([], 1)
    assert pool.grow(two, 4) and pool.grow(one, 8) and pool.grow(one, 1)
    assert (len(one), len(two), pool.free) == (2, 1, 0)
    assert not pool.grow(one, 9)
    check_pool(pool, [one, two])


def test_the_first_block_of_a_name_stays_the_one():
    pool = BlockPool(3, 1)
    first, second = named_table(pool, [1]), named_table(pool, [1])
    assert pool.find(chain([1], 1)) == first
    pool.release(first)
    pool.name(second[0], chain([1], 1)[0])
    assert pool._names[second[0]] is None
    check_pool(pool, [second])


def test_copy_on_write_leaves_the_name_with_the_content():
    pool = BlockPool(3, 1)
    table = named_table(pool, [1])
    other = pool.share(table)
    assert pool.own(other, 0) == (table[0], other[0])
    assert table != other
    assert pool.find(chain([1], 1)) == table
    check_pool(pool, [table, other])


def test_without_prefix_caching_nothing_has_a_name():
    pool = BlockPool(3, 1, enable_prefix_caching=False)
    pool.release(named_table(pool, [1, 2]))
    assert pool.find(chain([1, 2], 1)) == []


def test_a_reset_pool_is_as_good_as_new():
    pool = BlockPool(3, 1)
    named_table(pool, [1, 2])
    pool.reset()
    check_pool(pool)
    assert pool.find(chain([1, 2], 1)) == []
    assert [pool.take() for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("sizes", [(0, 16), (-1, 16), (1.5, 16), (True, 16), (4, 0), (4, "16"), (4, None)])
def test_senseless_pools_are_refused(sizes):
    with refuses(BadParameter, match="num_blocks=|block_size="):
        BlockPool(*sizes)
