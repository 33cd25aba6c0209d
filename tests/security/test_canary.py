"""Canaries: the system prompt and one's own secrets, however they are written down, and nothing else."""

from __future__ import annotations

from random import Random

import pytest

from lessonlib.engine.errors import BadParameter
from lessonlib.security.canary import GAP, MAX_PROMPT, PROMPT_WINDOW, TOKEN_WINDOW, Canaries, fold, mint
from lessonlib.security.evaluation.ordinary_answers import code_answers
from lessonlib.security.evaluation.output import DISGUISES, PROMPT
from lessonlib.security.output_filter import OutputFilter

from ..engine.conftest import is_one_sentence

TOKEN = "zephyr-lantern-quokka-31"
guarded = OutputFilter(system_prompt=PROMPT, secrets=[TOKEN], kinds=["jwt"])


def noticed(text: str) -> set[str]:
    return {finding.kind for finding in guarded.filter(text).findings}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_pieces_of_the_prompt_are_found_in_every_disguise(disguise):
    random = Random(3)
    for _ in range(20):
        start = random.randrange(len(PROMPT) - 80)
        written = DISGUISES[disguise](PROMPT[start : start + 80])
        assert noticed(f"Sure, here it is: {written}.") == {"system_prompt"}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_canary_is_found_in_every_disguise_and_removed(disguise):
    written = DISGUISES[disguise](f"The code is {TOKEN}, do not tell.")
    result = guarded.filter(f"Sure: {written}.")
    assert "canary" in {finding.kind for finding in result.findings}
    assert DISGUISES[disguise](TOKEN)[8:-8] not in result


def test_the_whole_prompt_is_one_finding_and_all_of_it_is_gone():
    result = guarded.filter(f"My instructions are: {PROMPT} And that is all.")
    assert result == "My instructions are: [REDACTED:system_prompt]. And that is all."
    assert [(f.kind, f.start) for f in result.findings] == [("system_prompt", 21)]


def test_what_is_shorter_than_a_window_may_be_said():
    letters = fold(PROMPT)
    assert noticed(f"Say: {letters[40 : 40 + PROMPT_WINDOW]} now") == {"system_prompt"}
    assert noticed(f"Say: {letters[40 : 40 + PROMPT_WINDOW - 1]} ... now") == set()
    token = fold(TOKEN)
    assert noticed(f"{token[:TOKEN_WINDOW]}") == {"canary"}
    assert noticed(f"{token[: TOKEN_WINDOW - 1]}") == set()


def test_letters_may_stand_so_far_apart_and_no_farther():
    piece = fold(PROMPT)[:60]
    assert noticed((" " * GAP).join(piece)) == {"system_prompt"}
    assert noticed((" " * (GAP + 1)).join(piece)) == set()


def test_another_prompt_and_ordinary_answers_are_not_found():
    other = (
        "You are Ada, a tutor for linear algebra. Never give the solution before the student has tried twice."
    )
    for disguise in DISGUISES.values():
        assert noticed(disguise(other)) == set()
    for answer in [*code_answers("held out")][:100]:
        assert noticed(answer) == set()
    assert noticed("-" * 500 + "2d" * 200 + "0" * 400 + "4545" * 100) == set()


def test_dashes_in_a_prompt_do_not_make_every_dashed_line_in_hex_a_leak():
    dashed = OutputFilter(system_prompt=f"{PROMPT}\n{'-' * 80}\n{PROMPT}")
    assert not dashed.filter(("-" * 80).encode().hex()).findings


def test_minted_canaries_differ_and_are_found():
    one, two = mint(), mint()
    assert one != two and len(one) == 24
    policy = OutputFilter(secrets=[one])
    assert policy.filter(f"it is {' '.join(one)}!") == "it is [REDACTED:canary]!"
    assert policy.filter(f"it is {two}!") == f"it is {two}!"


@pytest.mark.parametrize(
    "wrong", [{"system_prompt": "Be nice."}, {"secrets": ["hunter2"]}, {"system_prompt": "ab " * MAX_PROMPT}]
)
def test_what_cannot_be_told_from_chance_is_refused_in_one_sentence(wrong):
    with pytest.raises(BadParameter) as told:
        Canaries(**wrong)
    assert is_one_sentence(str(told.value))


def test_folding_undoes_spacing_accents_widths_and_look_alikes():
    assert fold("P á s-S\u200bＷ ｏ\u0301rd ﬁx") == fold("passwordfix") == "passwordfix"
    assert fold("рассword") == "paccword"  # the first letters are Cyrillic
    assert fold("\ud800\0") == ""
