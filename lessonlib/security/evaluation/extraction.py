"""How often the ``ExtractionDetector`` is right, and how much each line of the ``LogitSurfacePolicy`` holds.

The exchanges are simulated, from real sentences: the docstrings and functions of the Python standard library, which
every machine has. Time is simulated too. A simulated crowd is no crowd: the limits were chosen with these workloads in
view (at another seed), so the figures show what the detector can and cannot tell apart in principle, among it that
honest programs and patient thieves look alike.
"""

from __future__ import annotations

import ast
import platform
import random
import re
import statistics
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from lessonlib.engine import load_model

from ..attacks import ModelOracle, attack_hidden_size, attack_shown_values
from ..extraction import ExtractionDetector
from ..logit_surface import LogitSurfacePolicy

DAY = 8 * 3600.0  # an ordinary user's
MODULES = 80  # of the standard library, by name
THEFT = 4000  # queries of a thief, at most

Exchange = tuple[float, str, str]  # seconds, prompt, response
Workload = Callable[[random.Random], Iterator[Exchange]]


@cache
def material() -> tuple[list[str], list[str], list[str]]:
    """Sentences, functions and words of the standard library, in a reproducible order."""
    sentences, functions = [], []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:MODULES]:
        try:
            text = path.read_text("utf-8")
            lines, tree = text.splitlines(), ast.parse(text)
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)):
                sentences += [s for s in re.split(r"(?<=[.?!])\s+", " ".join(doc.split())) if len(s) > 30]
                functions.append(dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])))
    words = sorted({word for s in sentences for word in re.findall(r"[a-z]{3,}", s.lower())})
    return sentences, functions, words


def _text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.sample(material()[0], rng.randint(least, most)))


# ---------------------------------------------------------------- ordinary people, one working day


def iterating(rng: random.Random) -> Iterator[Exchange]:
    """Sessions of 5 to 60 edits of one prompt (a word changed, taken out, a sentence added), 10 to 150 s apart."""
    now = 0.0
    while now < DAY:
        prompt = _text(rng, 1, 5).split()
        for _ in range(rng.randint(5, 60)):
            yield now, " ".join(prompt), _text(rng, 2, 8)
            now += 10 + rng.expovariate(1 / 35)
            place = rng.randrange(len(prompt))
            change = rng.random()
            if change < 0.5:
                prompt[place] = rng.choice(material()[2])
            elif change < 0.75 and len(prompt) > 5:
                del prompt[place]
            else:
                prompt[place:place] = _text(rng, 1, 1).split()[: rng.randint(1, 12)]
        now += rng.uniform(60, 3600)


def chatting(rng: random.Random) -> Iterator[Exchange]:
    """A question of some sentences, then short follow-ups that many conversations share."""
    now = 0.0
    follow_ups = (
        "shorter, please",
        "why?",
        "go on",
        "give me an example",
        "that is wrong, try again",
        "thanks",
    )
    while now < DAY:
        yield now, _text(rng, 1, 3), _text(rng, 2, 8)
        for _ in range(rng.randint(0, 6)):
            now += 15 + rng.expovariate(1 / 45)
            yield now, rng.choice(follow_ups), _text(rng, 1, 6)
        now += 30 + rng.expovariate(1 / 240)


def coding(rng: random.Random) -> Iterator[Exchange]:
    """Functions pasted under one of three instructions."""
    now = 0.0
    heads = ("Explain this function.", "Find the bug in this function:", "Write a test for this:")
    while now < DAY:
        yield now, f"{rng.choice(heads)}\n\n{rng.choice(material()[1])}", rng.choice(material()[1])
        now += 20 + rng.expovariate(1 / 100)


def looking_up(rng: random.Random) -> Iterator[Exchange]:
    """A reader who asks for the meaning of some 40 words an hour, in the same sentence each time."""
    now = 0.0
    while now < DAY:
        word = rng.choice(material()[2])
        yield now, f"What does the word {word} mean?", _text(rng, 1, 2)
        now += 20 + rng.expovariate(1 / 70)


def monitor(rng: random.Random) -> Iterator[Exchange]:
    """The same question every 10 s, with the same answer."""
    for tick in range(int(DAY / 10)):
        yield 10.0 * tick, "Are you there?", "Yes."


def application(rng: random.Random) -> Iterator[Exchange]:
    """An honest program: one template around other people's texts, 20 an hour to 20 a minute."""
    now, pace = 0.0, 3 * 60 ** rng.random()
    while now < DAY:
        yield now, f"Summarise the following text in one sentence.\n\n{_text(rng, 2, 6)}", _text(rng, 1, 1)
        now += rng.expovariate(1 / pace)


def labelling(rng: random.Random) -> Iterator[Exchange]:
    """An honest program with short texts, so that the template is most of the prompt, 20 an hour to 20 a minute."""
    now, pace = 0.0, 3 * 60 ** rng.random()
    while now < DAY:
        remark = " ".join(_text(rng, 1, 1).split()[: rng.randint(2, 8)])
        yield (
            now,
            f"Is the following remark positive or negative? {remark}",
            rng.choice(["positive", "negative"]),
        )
        now += rng.expovariate(1 / pace)


# ---------------------------------------------------------------- thieves


def _every(gap: float, prompts: Iterator[str], rng: random.Random) -> Iterator[Exchange]:
    for i, prompt in zip(range(THEFT), prompts, strict=False):
        yield i * gap, prompt, _text(rng, 1, 3)


def _filled(rng: random.Random, *templates: str) -> Iterator[str]:
    words = rng.sample(material()[2], len(material()[2]))
    return (templates[i % len(templates)].format(word) for i, word in enumerate(words))


def template_sweep(rng: random.Random) -> Iterator[Exchange]:
    """One sentence, word after word, one a second."""
    return _every(1, _filled(rng, "Use the word {} in a sentence about the sea."), rng)


def bare_words(rng: random.Random) -> Iterator[Exchange]:
    """The vocabulary itself, a word a prompt, one a second."""
    return _every(1, _filled(rng, "{}"), rng)


def random_words(rng: random.Random) -> Iterator[Exchange]:
    """Ten random words a prompt (Krishna et al. 2020), one a second."""
    return _every(1, (" ".join(rng.choices(material()[2], k=10)) for _ in range(THEFT)), rng)


def sums(rng: random.Random) -> Iterator[Exchange]:
    """Arithmetic: only numbers change."""
    return _every(1, (f"What is {rng.randrange(10**6)} + {rng.randrange(10**6)}?" for _ in range(THEFT)), rng)


def resampling(rng: random.Random) -> Iterator[Exchange]:
    """One prompt, sampled again and again at temperature 1."""
    prompt = _text(rng, 1, 2)
    return _every(1, (prompt for _ in range(THEFT)), rng)


def eight_templates(rng: random.Random) -> Iterator[Exchange]:
    """The sweep in eight wordings by turns."""
    return _every(
        1,
        _filled(
            rng,
            "Use the word {} in a sentence about the sea.",
            "Write me something on the ocean with {} in it.",
            "{}: an example, please, that mentions water.",
            "How might a sailor say {}?",
            "Could you put {} into one short line of a shanty?",
            "Please give one phrase where fishermen talk of {}.",
            "In a story set on a ship, where would {} occur?",
            "Compose a headline for the harbour news around {}.",
        ),
        rng,
    )


def distilling(rng: random.Random) -> Iterator[Exchange]:
    """Varied natural prompts, one every 2 s: a student model's training set."""
    return _every(2, (_text(rng, 1, 3) for _ in range(THEFT)), rng)


def slow_sweep(rng: random.Random) -> Iterator[Exchange]:
    """The template sweep, one a minute."""
    return _every(60, _filled(rng, "Use the word {} in a sentence about the sea."), rng)


def twenty_accounts(rng: random.Random) -> Iterator[Exchange]:
    """One of twenty accounts that share a template sweep of one a second."""
    return _every(20, _filled(rng, "Use the word {} in a sentence about the sea."), rng)


def twenty_distillers(rng: random.Random) -> Iterator[Exchange]:
    """One of twenty accounts that share the distilling."""
    return _every(40, (_text(rng, 1, 3) for _ in range(THEFT)), rng)


PEOPLE: tuple[Workload, ...] = (iterating, chatting, coding, looking_up, monitor)
PROGRAMS: tuple[Workload, ...] = (application, labelling)
THIEVES: tuple[Workload, ...] = (
    template_sweep,
    bare_words,
    random_words,
    sums,
    resampling,
    eight_templates,
    distilling,
    slow_sweep,
    twenty_accounts,
    twenty_distillers,
)


def first_flag(workload: Workload, seed: int, **settings: Any) -> tuple[int | None, int]:
    """At which exchange (from 1) a user of this kind is first suspicious, None for never; and how many there were."""
    now = 0.0
    detector = ExtractionDetector(clock=lambda: now, **settings)
    count = 0
    for now, prompt, response in workload(random.Random(f"{workload.__name__} {seed}")):  # noqa: B007
        count += 1
        if detector.check("user", prompt, response)["suspicious"]:
            return count, count
    return None, count


def detector_figures(users: int = 20, seed: int = 1) -> list[dict[str, Any]]:
    """For each kind of user: the share flagged within a day (people) or 4,000 queries (thieves), and how soon."""
    data = (
        f"docstrings of {MODULES} modules of Python {platform.python_version()}, {users} users, seed {seed}"
    )
    rows = []
    for side, workloads in (("people", PEOPLE), ("programs", PROGRAMS), ("extraction", THIEVES)):
        for workload in workloads:
            runs = [first_flag(workload, seed * 10_000 + user) for user in range(users)]
            flagged = [first for first, _ in runs if first is not None]
            rows.append(
                {
                    "side": side,
                    "workload": workload.__name__,
                    "users": users,
                    "flagged": len(flagged) / users,
                    "median_queries": statistics.median(flagged) if flagged else None,
                    "exchanges": sum(count for _, count in runs),
                    "data": data,
                }
            )
    return rows


def surface_figures(model: str = "pico") -> list[dict[str, Any]]:
    """What the attack on the output layer learns under each line of the policy by itself."""
    target = load_model(model)
    size, vocab = target.config.hidden_size, target.config.vocab_size
    policies = {
        "off": LogitSurfacePolicy.off(),
        "off, top 5": LogitSurfacePolicy.off(5),
        "rounding to 0.01 alone": LogitSurfacePolicy(before_bias=False, max_biased_tokens=None),
        "budget alone": LogitSurfacePolicy(decimals=None, before_bias=False),
        "before the bias alone": LogitSurfacePolicy(decimals=None, max_biased_tokens=None),
        "default": LogitSurfacePolicy(),
    }
    rows = []
    for name, policy in policies.items():
        stolen = attack_hidden_size(ModelOracle(target, policy), vocab, top_k=policy.top_k, limit=512)
        rows.append(_row(name, stolen, size, model))
    stolen = attack_shown_values(ModelOracle(target, LogitSurfacePolicy()), vocab)
    rows.append(_row("default, attack without bias", stolen, size, model))
    return rows


def _row(policy: str, stolen: Any, hidden_size: int, model: str) -> dict[str, Any]:
    return {
        "policy": policy,
        "recovered": stolen.hidden_size,
        "hidden_size": hidden_size,
        "gap": stolen.gap,
        "queries": stolen.queries,
        "reason": stolen.reason,
        "data": f"{model}, prompts of random tokens, seed 0",
    }
