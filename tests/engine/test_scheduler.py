"""The scheduler over lists: one scene for each promise."""

from __future__ import annotations

import pytest

from lessonlib.engine.blocks import BlockPool
from lessonlib.engine.errors import BadParameter, CacheFull
from lessonlib.engine.scheduler import Request, Scheduler

from .conftest import refuses
from .fakes import check_pool, check_queues, ledger, params


def test_a_preempted_request_finds_its_own_beginning_again():
    """Its blocks were not needed by others as a whole: what is still there is not computed twice."""
    book = ledger(num_blocks=5, block_size=2, max_num_seqs=2)
    old, young = Request([0, 1, 0], params(6)), Request([1, 1], params(6))
    book.add(old)
    book.add(young)
    while not young.preemptions:
        book.step()
    known = young.known
    assert young.cached == 0 and young.table == []
    book.run(limit=50)
    again = young.processed - (young.known - 1)
    assert 0 < again < known - 1 and (known - 1 - again) % 2 == 0  # whole blocks were found
    assert old.preemptions == 0


def test_only_what_others_computed_counts_as_cached():
    """Three tenants share nothing, and a request's own blocks, found again, are nothing saved."""
    prompt = [0, 1, 2] * 8
    book = ledger(num_blocks=24, block_size=4)
    for salt in ("a", "b", "c"):
        book.add(Request(list(prompt), params(20), salt=salt))
    book.run(limit=500)
    assert book.scheduler.preemptions
    assert [request.cached for request in book.requests] == [0, 0, 0]
    # Nor is what was found for a step that failed.
    book = ledger(num_blocks=24, block_size=4)
    book.add(Request(list(prompt), params(3)))
    book.run(limit=20)
    book.add(failed := Request(list(prompt), params(3)))
    book.scheduler.schedule()
    assert failed.computed == 20
    book.scheduler.recover()
    book.run(limit=20)
    assert (failed.cached, failed.processed) == (0, len(prompt) + 2)


def test_a_fully_cached_prompt_still_runs_its_last_token():
    for length in (4, 8, 7, 9):
        book = ledger(num_blocks=8, block_size=4)
        prompt = [0, 1, 2, 0, 1, 2, 0, 1, 2][:length]
        for _ in range(3):
            book.add(Request(list(prompt), params(3)))
            book.run(limit=20)
        first, second, third = book.requests
        assert first.cached == 0
        assert second.cached == third.cached == (length - 1) // 4 * 4
        assert second.output == first.output == third.output


def test_a_follow_up_finds_prompt_and_answer():
    book = ledger(num_blocks=8, block_size=2)
    first = Request([0, 1, 2], params(6))
    book.add(first)
    book.run(limit=20)
    book.add(second := Request([*first.ids, 1], params(2)))
    book.run(limit=20)
    assert second.cached == 8  # nine tokens are known of the first, and its last one never ran


def test_salts_keep_tenants_apart():
    book = ledger(num_blocks=30, block_size=2)
    for salt in ("", "a", "a", "b", ""):
        book.add(Request([0, 1, 2, 0, 1], params(2), salt=salt))
        book.run(limit=20)
    assert [request.cached for request in book.requests] == [0, 0, 4, 0, 4]


def test_the_same_block_after_another_beginning_is_another_block():
    book = ledger(num_blocks=30, block_size=2)
    for prompt in ([0, 0, 1, 1, 2], [2, 2, 1, 1, 2], [0, 0, 1, 1, 2]):
        book.add(Request(prompt, params(1)))
        book.run(limit=20)
    assert [request.cached for request in book.requests] == [0, 0, 4]


def test_a_pool_of_one_block_serves_one_after_another():
    book = ledger(num_blocks=1, block_size=8, max_num_seqs=4)
    for length in (1, 5, 8):
        leader = Request([1] * length, params(9 - length))
        book.add(leader)
        book.add(Request([1] * length, params(9 - length), leader=leader))
    book.run(limit=100)
    assert book.scheduler.preemptions == 0


def test_a_long_prompt_comes_in_chunks_and_holds_nobody_up():
    book = ledger(num_blocks=50, max_num_batched_tokens=4)
    book.add(reader := Request([1], params(30)))
    book.step()
    book.add(long := Request([1] * 30, params(1)))
    while long.finish_reason is None:
        (decode, chunk) = book.step()
        assert decode.request is reader and decode.count == 1
        assert chunk.request is long and chunk.count == min(3, 30 - chunk.start)
    assert len(reader.output) == 11


def test_one_token_a_step_is_enough():
    book = ledger(max_num_batched_tokens=1)
    for length in (3, 1, 5):
        book.add(Request([0] * length, params(4), lookahead=2))
    book.run(limit=3 * (5 + 4))
    assert book.processed == book.steps


def test_n_answers_compute_their_prompt_once_without_any_prefix_cache():
    for length in (1, 4, 5, 8):
        book = ledger(num_blocks=30, prefix_caching=False)
        leader = Request([0] * length, params(5))
        group = [leader, *(Request([0] * length, params(5), leader=leader) for _ in range(3))]
        for request in group:
            book.add(request)
        book.step()
        assert book.processed == length
        book.step()
        blocks = {block for request in group for block in request.table}
        # All whole blocks of the prompt are one, and the one they write into next is each one's own.
        last = (length - 1) // 4
        assert all(request.table[:last] == leader.table[:last] for request in group)
        assert len(blocks) == last + 4 * (len(leader.table) - last) - (len(leader.table) - last - 1) * 3
        book.run(limit=30)
        assert [request.cached for request in group] == [0] + [length - 1] * 3
        assert book.processed == length + 3 + 4 * 4


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("moment", ["waiting", "prefill", "prefilled", "decode", "last"])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_leaders_and_followers_aborted_at_any_moment(prefix_caching, moment, victim):
    book = ledger(num_blocks=30, max_num_batched_tokens=4, prefix_caching=prefix_caching)
    leader = Request([0] * 7, params(4))
    group = [leader, Request([0] * 7, params(6), leader=leader), Request([0] * 7, params(5), leader=leader)]
    for request in group:
        book.add(request)
    for _ in range(["waiting", "prefill", "prefilled", "decode", "last"].index(moment)):
        book.step()
    book.abort(group[victim])
    book.run(limit=40)
    assert [request.finish_reason for request in group].count("length") == 2


def test_a_leader_that_is_preempted_or_done_before_its_followers_begin():
    for answer, others in ((1, 0), (8, 2)):
        book = ledger(num_blocks=4, block_size=2, max_num_seqs=2, prefix_caching=False)
        for _ in range(others):
            book.add(Request([1, 2], params(5)))
        leader = Request([0, 0, 0], params(min(answer, 6)))
        book.add(leader)
        follower = Request([0, 0, 0], params(4), leader=leader)
        book.add(follower)
        book.run(limit=60)
        assert len(follower.output) == 4


def priority_stream(patience: int, policy: str = "priority") -> int:
    """Steps until somebody of priority 3 ends, while one of priority 0 arrives at every step."""
    book = ledger(num_blocks=8, max_num_seqs=2, policy=policy, patience=patience)
    for _ in range(3):
        book.add(Request([0, 1], params(3)))
    book.add(low := Request([2], params(4), priority=3))
    while low.finish_reason is None:
        book.add(Request([0, 1], params(3)))
        book.step()
        assert book.steps < 1000
    return book.steps


def test_nobody_starves_behind_better_ranked_ones():
    for patience in (1, 5, 20, 50):
        # Three levels are worth that many steps; those who came before it are many, and run two at a time.
        waited = priority_stream(patience)
        assert 3 * patience < waited
        assert waited <= 3 * patience + 3 * (3 * patience + 4)
    assert priority_stream(20, "fcfs") < 20


def test_priorities_decide_who_waits_and_who_is_preempted():
    book = ledger(num_blocks=20, max_num_seqs=1, policy="priority")
    for priority in (0, 2, 1, 2, 0):
        book.add(Request([0], params(2), priority=priority))
    book.run(limit=20)
    assert [request.priority for request in book.first_tokens] == [0, 0, 1, 2, 2]
    book = ledger(num_blocks=4, block_size=2, max_num_seqs=2, policy="priority")
    book.add(low := Request([0, 1], params(7), priority=1))
    book.add(high := Request([1, 1], params(7), priority=0))
    book.run(limit=60)
    assert low.preemptions > 0 and high.preemptions == 0


def test_a_preempted_step_admits_nobody():
    """The blocks that became free are for those who run, however small and well ranked somebody new may be."""
    book = ledger(num_blocks=6, block_size=1, policy="priority", prefix_caching=False)
    book.add(Request([0], params(6)))
    book.add(big := Request([0] * 3, params(3), priority=1))
    book.step()
    book.add(small := Request([0], params(1)))
    while not big.preemptions:
        book.step()
    assert not small.output
    book.step()
    assert small.output and not big.table
    book.run(limit=20)


def test_nobody_is_let_in_to_be_pushed_out_again():
    """One block for each who runs is left alone; so the new one fits, but has to wait."""
    book = ledger(num_blocks=4, block_size=1)
    book.add(first := Request([0], params(4)))
    book.step()
    book.add(second := Request([1, 1, 1], params(1)))
    book.step()
    assert (first.computed, second.table) == (2, [])
    book.run(limit=10)
    assert book.scheduler.preemptions == 0


def test_drafts_push_nobody_out_and_stop_at_the_end():
    book = ledger(num_blocks=3, block_size=2, guesses_right=1.0, max_num_seqs=2)
    book.add(Request([0], params(5), lookahead=4))
    book.add(Request([1], params(2)))
    book.run(limit=20)
    assert book.scheduler.preemptions == 0
    # All guesses right: four drafts and one more in a step, none of them behind the last token.
    book = ledger(num_blocks=9, guesses_right=1.0)
    book.add(Request([0], params(9), lookahead=4))
    counts = [slot.count for _ in range(3) for slot in book.step()]
    assert (counts, book.scheduler.unfinished) == ([1, 5, 3], 0)
    # None right: each step brings one token all the same.
    book = ledger(num_blocks=9, guesses_right=0.0)
    book.add(Request([0], params(6), lookahead=4))
    counts = [slot.count for _ in range(6) for slot in book.step()]
    assert (counts, book.scheduler.unfinished) == ([1, 5, 4, 3, 2, 1], 0)
    # Nor behind the end of the context.
    book = ledger(num_blocks=9, guesses_right=0.0, context=6)
    book.add(Request([0, 0], params(60), lookahead=4))
    counts = [slot.count for _ in range(4) for slot in book.step()]
    assert (counts, book.scheduler.unfinished) == ([2, 3, 2, 1], 0)


def test_drafts_cost_nobody_a_turn():
    book = ledger(num_blocks=30, max_num_batched_tokens=4, guesses_right=0.5)
    group = [Request([number], params(12), lookahead=4) for number in range(3)]
    for request in group:
        book.add(request)
    book.step()
    drafted = 0
    while not any(request.finish_reason for request in group):
        slots = book.step()
        assert len(slots) == 3
        drafted += sum(slot.drafts for slot in slots)
    assert drafted > 3
    book.run(limit=40)


def test_what_can_never_fit_is_refused_at_once():
    book = ledger(num_blocks=2, block_size=4)
    assert book.add(Request([0] * 8, params(1)))
    assert book.add(Request([0] * 3, params(6)))
    for prompt, wanted in ((9, 1), (3, 7), (1, 9)):
        with refuses(CacheFull, match="can grow to 9 tokens.* holds 8"):
            book.scheduler.add(Request([0] * prompt, params(wanted)))
    book.run(limit=50)
    # The context ends a request that would be too long, and one that begins too long never comes in.
    short = ledger(num_blocks=2, block_size=4, context=9)
    assert short.add(Request([0] * 8, params(100)))
    with refuses(CacheFull):
        short.scheduler.add(Request([0] * 9, params(1)))
    short.run(limit=20)


def test_aborting_what_is_over_or_was_never_here_does_nothing():
    book = ledger()
    book.add(done := Request([0], params(1)))
    book.run(limit=5)
    book.scheduler.abort(done)
    book.scheduler.abort(never := Request([0], params(1)))
    assert (done.finish_reason, never.finish_reason) == ("length", "abort")
    check_queues(book.scheduler)


def test_requests_are_themselves_and_nobody_else():
    book = ledger(max_num_seqs=1)
    twins = [Request([0], params(3)) for _ in range(3)]
    for twin in twins:
        book.add(twin)
    book.abort(twins[2])
    book.abort(twins[1])
    book.step()
    assert len(twins[0].output) == 1
    assert len(set(twins)) == 3


def test_an_aborted_request_of_a_running_step_is_left_out():
    book = ledger(num_blocks=4, block_size=1)
    book.add(request := Request([0, 0], params(2)))
    (slot,) = book.scheduler.schedule()
    book.abort(request)
    book.scheduler.complete(slot)
    check_pool(book.pool)
    assert book.pool.find([b""]) == [] and not book.pool._named


@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_seqs": 0},
        {"max_num_batched_tokens": 0},
        {"patience": 0},
        {"max_num_seqs": 1.5},
        {"policy": "lifo"},
    ],
    ids=str,
)
def test_senseless_settings_are_refused(settings):
    with refuses(BadParameter, match=next(iter(settings))):
        Scheduler(BlockPool(1), **settings)
