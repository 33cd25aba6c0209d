"""The output filter: what it finds, by its structure and not by chance, and what it leaves alone."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import security
from lessonlib.engine.errors import BadParameter
from lessonlib.security import checksums
from lessonlib.security.evaluation import output as evaluation
from lessonlib.security.evaluation.ordinary_answers import FAMILIES, code_answers
from lessonlib.security.evaluation.output_samples import FORMATS, contexts, luhn_digit, sample
from lessonlib.security.output_filter import OutputFilter
from lessonlib.security.rules import book
from lessonlib.security.secrets_patterns import KINDS, RULES
from lessonlib.security.streaming import BLOCK, view_of

from ..engine.conftest import QUIET, is_one_sentence

policy = OutputFilter()


def kinds(text: str) -> list[str]:
    return [finding.kind for finding in policy.filter(text).findings]


@pytest.mark.parametrize("kind", evaluation.KINDS_MADE)
def test_secrets_are_removed_in_every_context_and_called_what_they_are(kind):
    random = Random(kind)
    left = missed = 0
    for _ in range(20):
        item = sample(kind, random)
        for _context, answer in contexts(item):
            result = policy.filter(answer)
            left += evaluation.leaks(item, result)
            missed += kind not in [finding.kind for finding in result.findings]
    assert left <= 5 and missed <= 5  # of 100


def test_the_aims_of_the_course_are_met():
    assert len(FORMATS.keys() - {"email", "phone", "iban", "payment_card"}) >= 22
    found = evaluation.recall(policy, per_kind=10, seed=4)
    assert {context for _, context in found} == {"prose", "JSON", "Python", "shell", "Markdown"}
    assert sum(found.values()) / len(found) >= 0.95
    count, flagged = evaluation.flagged(policy, evaluation.ordinary(per_family=60, seed=4))
    assert flagged["any"] <= 0.005 * count


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_answers_pass_untouched(family):
    random = Random(family)
    answers = [FAMILIES[family](random) for _ in range(60)]
    touched = [answer for answer in answers if policy.filter(answer) != answer]
    # One of 97 numbers of the right length is an account number by chance, and one of ten a card number.
    assert len(touched) <= (2 if family in ("capitals", "long numbers") else 0), touched


def test_held_out_code_has_no_findings_but_its_authors_addresses():
    count, flagged = evaluation.flagged(policy, code_answers("held out"))
    assert count > 300
    assert set(flagged) <= {"email", "any"} and flagged["email"] <= 0.01 * count


# ---------------------------------------------------------------- structure and checksums


@pytest.mark.parametrize("kind", ["github_token", "npm_token", "payment_card", "iban", "age_secret_key"])
def test_one_wrong_character_and_the_checksum_no_longer_fits(kind):
    random = Random(kind)
    for _ in range(20):
        right = sample(kind, random).written
        at = random.choice(
            [i for i in range(len(right) // 2, len(right)) if right[i].isdigit() and right[i] in "2345678"]
            or [0]
        )
        if not at:
            continue
        wrong = right[:at] + str(int(right[at]) + 1) + right[at + 1 :]
        assert kind in kinds(f"It is {right}.")
        assert kind not in kinds(f"It is {wrong}.")


def test_a_real_token_of_githubs_documentation_has_the_checksum_it_should():
    assert checksums.crc_token(b"ghp_" + b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq17")
    assert not checksums.crc_token(b"ghp_" + b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq18")


@given(st.text("0123456789", min_size=1, max_size=18))
@QUIET
def test_luhn_takes_one_check_digit_of_ten(digits):
    right = [d for d in "0123456789" if checksums.luhn(digits + d)]
    assert right == [luhn_digit(digits)]


def test_known_examples_of_standards():
    assert kinds("DE89 3704 0044 0532 0130 00, GB82WEST12345698765432") == ["iban", "iban"]  # ISO 13616
    assert kinds("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF") == ["iban"]
    assert kinds("DE88 3704 0044 0532 0130 00") == []
    assert kinds("4111 1111 1111 1111, 378282246310005 and 3782-822463-10005") == ["payment_card"] * 3
    assert kinds("4111 1111-1111 1111 and 0.4111111111111111 and 9111 1111 1111 1111") == []


def test_a_jwt_needs_a_header_that_names_its_algorithm():
    random = Random(1)
    token = sample("jwt", random).written
    assert kinds(f"curl -H 'X: {token}'") == ["jwt"]
    header, claims, signature = token.split(".")
    assert kinds(f"{claims}.{claims}.{signature} {header}") == []


def test_phone_numbers_need_a_real_area():
    assert kinds("(415) 555-2671, 415-555-2671, +1 415.555.2671, +44 (0)20 7946 0958") == ["phone"] * 4
    assert kinds("(115) 555-2671, 415-155-2671, 911-555-2671, 2024-10-1234, +00:00, +28 1234 5678") == []
    assert kinds("Phone: 030 901820 and tel. 0301234") == ["phone"]


def test_addresses_of_authors_and_lists_stay_where_licences_want_them():
    kept = [
        '__author__ = "Ada Byron <ada@maple-bakery.com>"',
        "# Copyright (c) 1843 Ada Byron <ada@maple-bakery.com>",
        "Authors: Ada (ada@maple-bakery.com), Grace (grace@maple-bakery.com)",
        "Questions go to engine-users@maple-bakery.com.",
    ]
    for line in kept:
        assert kinds(f"import os\n{line}\n") == [], line
    taken = [
        "# Copyright\nada@maple-bakery.com",  # another line
        "The author wrote many letters, and " + "so on, " * 12 + "ada@maple-bakery.com",  # too far
        "Write to ada@maple-bakery.com, the author.",
        "copyrighted ada@maple-bakery.com",
    ]
    for line in taken:
        assert kinds(line) == ["email"], line
        stream = policy.stream()
        assert "ada@" not in "".join(map(stream.push, line)) + stream.finish()


def test_only_the_secret_part_is_taken_out():
    assert (
        policy.filter("postgresql://orders:s3cr" + "3t-db@db/x")
        == "postgresql://orders:[REDACTED:connection_password]@db/x"
    )
    value = "".join(Random(2).choices("abcXYZ0123456789", k=32))
    assert policy.filter(f'{{"api_key": "{value}"}}') == '{"api_key": "[REDACTED:assigned_secret]"}'
    assert (
        policy.filter(f'log("\\n{sample("gitlab_token", Random(1)).written}\\n")')
        == 'log("\\n[REDACTED:gitlab_token]\\n")'
    )


def test_the_typography_of_answers_hides_nothing():
    assert kinds("4111\u00a01111\u00a01111\u00a01111") == ["payment_card"]
    assert kinds("415\u2011555\u20112671") == ["phone"]
    assert kinds("“４１１１１１１１１１１１１１１１”") == ["payment_card"]
    assert kinds("ünd 4111111111111111é \ud800 ada@maple-bakery.com\0") == ["payment_card", "email"]


@given(st.text())
@QUIET
def test_each_character_is_one_byte_of_the_view(text):
    view = view_of(text)
    assert len(view) == len(text) and view.isascii()


# ---------------------------------------------------------------- the result


def test_the_result_is_a_text_with_findings_that_do_not_repeat_the_secret():
    text = "Write to ada@maple-bakery.com."
    result = policy.filter(text)
    assert isinstance(result, str) and result == "Write to [REDACTED:email]."
    (finding,) = result.findings
    assert (finding.kind, text[finding.start : finding.end]) == ("email", "ada@maple-bakery.com")
    assert "ada" not in repr(finding)
    assert policy.filter("").findings == [] and policy.filter("Hello.") == "Hello."


def test_modes():
    text = "One ada@maple-bakery.com two grace@maple-bakery.com."
    block, log = OutputFilter("block").filter(text), OutputFilter("log").filter(text)
    assert block == "One [BLOCKED:email]" and block.blocked
    assert log == text and not log.blocked
    assert block.findings == log.findings == policy.filter(text).findings and block.total == 2


def test_only_the_kinds_that_were_asked_for():
    text = f"ada@maple-bakery.com {sample('github_token', Random(1)).written}"
    assert OutputFilter(kinds=["email"]).filter(text).findings[0].kind == "email"
    assert [f.kind for f in OutputFilter(kinds=set(KINDS) - {"email"}).filter(text).findings] == [
        "github_token"
    ]


@pytest.mark.parametrize("wrong", [{"mode": "delete"}, {"kinds": ["shoe size"]}, {"kinds": []}])
def test_senseless_policies_are_refused_in_one_sentence(wrong):
    with pytest.raises(BadParameter) as told:
        OutputFilter(**wrong)
    assert is_one_sentence(str(told.value))


# ---------------------------------------------------------------- cost


class Counting:
    """A compiled expression that notes how much text it is given."""

    def __init__(self, regex):
        self.regex, self.sizes = regex, []

    def search(self, view, *where):
        self.sizes.append(len(view))
        return self.regex.search(view, *where)


HOSTILE = [
    "a",
    "a.",
    "a@b.",
    "password=",
    "4111 1111 ",
    "+1 ",
    "-----BEGIN PRIVATE KEY-----\n" + "A" * 24,
    "eyJ",
    "x://y:",
    "\n",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_search_sees_more_than_a_block_and_their_number_grows_like_the_text(unit, monkeypatch):
    rules = book(RULES)
    calls = []
    for size in (2 * BLOCK, 4 * BLOCK):
        counting = [Counting(searcher._regex) for searcher in rules.searchers]
        with monkeypatch.context() as patch:
            for searcher, one in zip(rules.searchers, counting, strict=True):
                patch.setattr(searcher, "_regex", one)
            policy.filter((unit * size)[:size])
        sizes = [size for one in counting for size in one.sizes]
        assert max(sizes, default=0) <= BLOCK + rules.longest + rules.look_behind
        calls.append(len(sizes))
    assert calls[1] <= 2.2 * calls[0] + 200


@pytest.mark.parametrize("unit", HOSTILE)
def test_on_a_stream_only_rules_that_can_start_there_are_searched(unit, monkeypatch):
    rules = book(RULES)
    counting = [Counting(searcher._regex) for searcher in rules.searchers]
    for searcher, one in zip(rules.searchers, counting, strict=True):
        monkeypatch.setattr(searcher, "_regex", one)
    stream, pieces = policy.stream(), 500
    for i in range(0, 4 * pieces, 4):
        stream.push((unit * 4 * pieces)[i : i + 4])
    assert sum(len(one.sizes) for one in counting) < 0.25 * pieces * len(counting)


@given(st.integers(0, 2**32))
@QUIET
def test_a_match_starts_with_a_byte_that_its_rule_can_start_with(seed):
    random = Random(seed)
    view = view_of(random.choice(list(contexts(sample(random.choice(evaluation.KINDS_MADE), random))))[1])
    rules = book(RULES)
    for searcher in rules.searchers:
        if match := searcher._regex.search(view):
            assert searcher in rules.starting(view[match.start() : match.start() + 1])


def test_untrusted_text_never_meets_a_regular_expression_that_can_run_away():
    room = Path(security.__file__).parent
    for name in (
        "canary",
        "checksums",
        "output_filter",
        "pii_patterns",
        "rules",
        "secrets_patterns",
        "shapes",
        "streaming",
    ):
        for node in ast.walk(ast.parse((room / f"{name}.py").read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not {"re", "regex"} & set(modules) and getattr(node, "module", "") != "re"
