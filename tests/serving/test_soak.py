"""At saturation for a while (LESSON_SOAK_SECONDS, 5 by default), with clients that leave, err and read slowly.

Afterwards nothing is held, memory is what it was, and the answers are still right.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random

import httpx
import psutil
import pytest

from lessonlib import LLM, SamplingParams
from lessonlib.serving.auth import Keys
from lessonlib.serving.engine import AsyncEngine, Generation
from lessonlib.serving.reply import Reply

from .conftest import NAME, SECONDS, Running, request_bytes, running

SOAK = float(os.environ.get("LESSON_SOAK_SECONDS", "5"))
CLIENTS = 12
PROMPTS = ["def f(", "import os\n", "class A:\n    def", "x = " * 50]
HEADERS = {"authorization": "Bearer key-a"}


def held(engine: AsyncEngine) -> Counter[str]:
    """What there is yet of its requests (a sequence holds its generation): other tests' servers may have theirs."""
    gc.collect()
    found = gc.get_objects()
    generations = [it for it in found if type(it) is Generation and it.engine is engine]
    replies = [it for it in found if type(it) is Reply and it.shared.engine is engine]
    return Counter(generations=len(generations), replies=len(replies))


def one(server: Running, http: httpx.Client, random: Random) -> str:
    """One client's day."""
    body = {
        "model": NAME,
        "prompt": random.choice(PROMPTS),
        "max_tokens": random.randint(1, 60),
        "n": random.choice([1, 1, 1, 3]),
        "ignore_eos": True,
        "stream": random.random() < 0.5,
        "logprobs": random.choice([None, 2]),
    }
    what = random.random()
    if what < 0.3:
        with closing(server.connect()) as connection:
            connection.sendall(request_bytes("/v1/completions", body, "Authorization: Bearer key-a"))
            time.sleep(random.random() * 0.1)
        return "left"
    if what < 0.4:
        body["n"] = -1
    answer = http.post(f"{server.url}/v1/completions", json=body, headers=HEADERS)
    return str(answer.status_code)


@pytest.mark.timeout(300 + 2 * SOAK)
@pytest.mark.parametrize("speculative_model", [None, "ngram"])
def test_nothing_is_left_behind(twin, speculative_model):
    llm = LLM(NAME, max_num_seqs=4, num_kv_blocks=40, speculative_model=speculative_model)
    with running(llm, max_waiting=8, keys=Keys(["a:key-a", "b:key-b"])) as server:
        found: Counter[str] = Counter()
        end, sizes = time.monotonic() + SOAK, []

        def client(number: int) -> None:
            random = Random(number)
            with httpx.Client(timeout=SECONDS) as http:
                while time.monotonic() < end:
                    found[one(server, http, random)] += 1
                    if number == 0:
                        sizes.append(psutil.Process().memory_info().rss)

        with ThreadPoolExecutor(CLIENTS) as pool:
            for done in [pool.submit(client, number) for number in range(CLIENTS)]:
                done.result()
        server.empty()
        # A handler whose client has gone may have its last lines to run yet.
        server.wait(lambda: not held(server.engine).total(), "nobody holds any of them")
        threads = threading.active_count()
        right = twin.generate([PROMPTS[0]], SamplingParams(temperature=0, max_tokens=20))[0].outputs[0].text
        asked = {"model": NAME, "prompt": PROMPTS[0], "temperature": 0, "max_tokens": 20}
        assert server.post("/v1/completions", asked, headers=HEADERS).json()["choices"][0]["text"] == right
        server.empty()
    middle, last = (
        max(sizes[part]) / 2**20 for part in (slice(0, len(sizes) // 2), slice(len(sizes) // 2, None))
    )
    print(f"{dict(found)} in {SOAK:g} s; {middle:.0f} MiB, then {last:.0f} MiB; {threads} threads")
    assert set(found) <= {"200", "400", "429", "left"} and {"200", "400", "left"} <= set(found)
    assert last < middle + 30
