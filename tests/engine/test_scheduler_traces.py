"""The scheduler over lists: thousands of random traces, and what has to hold in all of them."""

from __future__ import annotations

from random import Random

import pytest

from lessonlib.engine.scheduler import Request

from .fakes import Ledger, ledger, params


def any_ledger(random: Random) -> Ledger:
    return ledger(
        random,
        guesses_right=random.random(),
        vocab=random.randint(2, 4),
        num_blocks=random.choice([1, 2, 3, 4, 5, 6, 8, 12, 20]),
        block_size=random.choice([1, 1, 2, 3, 4, 8]),
        prefix_caching=random.random() < 0.7,
        max_num_seqs=random.choice([1, 2, 3, 4, 8]),
        max_num_batched_tokens=random.choice([1, 2, 3, 4, 6, 10, 30, 1000]),
        policy=random.choice(["fcfs", "priority"]),
        context=random.choice([None, None, 12, 20, 40]),
        patience=random.choice([1, 3, 10, 1000]),
    )


def any_requests(random: Random, book: Ledger) -> list[Request]:
    """A prompt that often begins like another one, and 1 to 4 answers to it."""
    room = book.pool.num_blocks * book.pool.block_size
    size = book.pool.block_size
    length = random.choice([1, size, 2 * size, random.randint(1, 12), random.randint(1, max(1, room))])
    length = max(1, min(length, (book.scheduler.context or 10**9) - 1))
    prompt = [0 if random.random() < 0.7 else random.randrange(book.vocab) for _ in range(length)]
    old = random.choice(book.requests).ids if book.requests else []
    if random.random() < 0.5:
        prompt = (old[:length] + prompt)[:length]
    settings = {
        "priority": random.randint(0, 3),
        "salt": random.choice(["", "", "a", "b"]),
        "lookahead": random.choice([0, 0, 1, 3]),
    }
    group: list[Request] = []
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        leader = group[0] if group else None
        outputs = params(random.choice([1, 2, 5, random.randint(1, 20)]))
        group.append(Request(list(prompt), outputs, leader=leader, **settings))
    return group


def events(seed: int, aborts: float, reruns: float = 0.0) -> tuple[Ledger, list[Request]]:
    """Requests that arrive, and are aborted, at random moments, run to the end."""
    random = Random(seed)
    book = any_ledger(random)
    arrived: list[Request] = []
    for _ in range(random.randint(1, 12)):
        leader, *followers = any_requests(random, book)
        if book.add(leader):
            arrived.append(leader)
            arrived += [request for request in followers if book.add(request)]
        for _ in range(random.choice([0, 0, 1, 3])):
            book.step()
            alive = [*book.scheduler.running, *book.scheduler.waiting]
            if alive and random.random() < aborts:
                book.abort(random.choice(alive))
            if random.random() < reruns:
                book.scheduler.schedule()  # as far as it got, when something went wrong
                book.scheduler.recover()
                book.check()
    book.run(limit=10 + sum(len(r.prompt) + r.params.max_tokens for r in arrived) * (1 + len(arrived)))
    return book, arrived


@pytest.mark.parametrize("batch", range(8))
def test_each_request_sees_its_own_beginning_and_ends(batch):
    preempted = shared = forked = 0
    for seed in range(200 * batch, 200 * (batch + 1)):
        book, arrived = events(seed, aborts=0)
        assert all(request.finish_reason == "length" for request in arrived)
        preempted += book.scheduler.preemptions
        shared += sum(request.cached for request in arrived if request.leader is None)
        forked += sum(request.cached for request in arrived if request.leader is not None)
        # Each token but the last is computed or found, at least once; a preemption costs no more than a whole run.
        for request in arrived:
            assert request.processed + request.cached >= request.known - 1
            drafted = request.lookahead * len(request.output)
            assert request.processed <= (request.preemptions + 1) * request.known + drafted
            if not (request.preemptions or request.lookahead):
                assert request.processed + request.cached == request.known - 1
        assert sum(request.processed for request in arrived) == book.processed
    assert min(preempted, shared, forked) > 10  # all of it did happen


@pytest.mark.parametrize("batch", range(8, 12))
def test_aborts_at_any_moment(batch):
    for seed in range(200 * batch, 200 * (batch + 1)):
        events(seed, aborts=0.5)


@pytest.mark.parametrize("batch", range(12, 15))
def test_steps_that_never_came_to_their_end(batch):
    for seed in range(200 * batch, 200 * (batch + 1)):
        events(seed, aborts=0.2, reruns=0.3)


def test_first_come_first_served():
    """First tokens come in the order of arrival, whatever the lengths, chunks and preemptions."""
    for seed in range(300):
        random = Random(seed)
        book = any_ledger(random)
        if book.scheduler.policy != "fcfs":
            continue
        arrived = []
        for _ in range(10):
            (request, *_) = any_requests(random, book)
            arrived += [request] if book.add(request) else []
            for _ in range(random.choice([0, 0, 1, 2])):
                book.step()
        book.run(limit=10_000)
        assert [id(request) for request in book.first_tokens] == [id(request) for request in arrived]


def test_the_oldest_is_never_preempted():
    preempted = 0
    for seed in range(100):
        random = Random(seed)
        book = ledger(random, num_blocks=6, block_size=2, max_num_seqs=4, prefix_caching=False)
        arrived = [Request([0, *[1] * random.randint(0, 4)], params(random.randint(1, 7))) for _ in range(6)]
        for request in arrived:
            book.add(request)
        while book.scheduler.unfinished:
            oldest = min(request.rank for request in [*book.scheduler.running, *book.scheduler.waiting])
            before = {id(r): r.preemptions for r in arrived if r.finish_reason is None}
            book.step()
            lost = [r for r in arrived if id(r) in before and r.preemptions > before[id(r)]]
            assert all(request.rank > oldest for request in lost)
            preempted += len(lost)
    assert preempted > 50
