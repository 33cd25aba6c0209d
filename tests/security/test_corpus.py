"""The corpus: a grammar that says what it means, and examples in which nothing but the words tells attacks apart."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from lessonlib.security.corpus import examples, families, fingerprint, is_attack
from lessonlib.security.corpus.grammar import Family, parse, read
from lessonlib.security.corpus.stdlib import texts
from lessonlib.security.evaluation.validator import LOOKALIKES, VOICES


def every_text(line: str, slots: str = "") -> set[str]:
    found, _ = read(f"== it\n{slots}\n{line}", "here", {})
    return {found[0].draw(Random(seed)) for seed in range(200)}


def test_choices_slots_and_escapes():
    assert every_text("{a|b {c|d}}!") == {"a!", "b c!", "b d!"}
    assert every_text("x{ maybe|}") == {"x", "x maybe"}
    assert every_text("{one} and {two}", "one = 1 | 2\ntwo = {one}{one}") >= {"1 and 11", "2 and 12"}
    assert every_text(r"\{a\|b\}\\ <|im|>\nnew") == {"{a|b}\\ <|im|>\nnew"}
    assert every_text("{just one}") == {"just one"}
    assert every_text("{pipe}", "pipe = a|b | c") == {"a|b", "c"}


@pytest.mark.parametrize("line", ["{a|b", "a}", "{a{b|c}"])
def test_unbalanced_braces_are_refused(line):
    with pytest.raises(ValueError, match=r"\.$"):
        parse(line)


def test_no_family_leaves_a_seam():
    for family in families():
        for number in range(60):
            text = family.draw(Random(number))
            assert text, family.name
            for mark in ("{" + slot + "}" for slot in family.slots):
                assert mark not in text, (family.name, text)


def test_every_template_can_be_drawn_and_names_are_unique():
    names = Counter(family.name for family in families())
    assert max(names.values()) == 1
    for family in families():
        assert len(family.templates) > 2 and is_attack(family) == family.source.startswith("attacks")
    assert set(names) >= LOOKALIKES
    assert {family.source for family in families()} >= set(VOICES)


def test_examples_are_the_same_every_time_and_all_different():
    one, two = examples(20), examples(20)
    assert one == two
    assert one != examples(20, seed=1)
    for family in {example.family for example in one}:
        found = [example.text for example in one if example.family == family]
        assert len(found) == len(set(found))


def test_length_and_typing_do_not_tell_attacks_apart():
    found = examples(100)
    groups = [[e.text for e in found if e.attack == attack] for attack in (True, False)]
    for what in (
        lambda text: text == text.lower(),
        lambda text: text.endswith((".", "!", "?")),
        lambda text: 100 < len(text) < 1000,
        lambda text: "\n" in text,
    ):
        shares = [sum(map(what, group)) / len(group) for group in groups]
        assert abs(shares[0] - shares[1]) < 0.25, shares
    assert 0.5 < len(groups[0]) / len(groups[1]) < 1.5


def test_the_library_gives_the_same_passages_every_time():
    found = texts(50)
    assert found == texts(50)
    assert len(set(found)) > 45 and all(len(text) >= 40 for text in found)


def test_the_fingerprint_is_that_of_the_files():
    assert fingerprint() == fingerprint()
    assert len(fingerprint()) == 64


def test_a_family_alone_gives_examples_of_itself():
    family = Family("it", "attacks_here", [parse("do {x|y|z}")], {})
    found = examples(30, chosen=[family])
    assert found and all(example.attack and example.family == "it" for example in found)
