"""The playground's JavaScript encodes as the `tokenizers` library does, or says that it cannot."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from lessonlib import explorers
from lessonlib.engine.checkpoint import ZOO
from lessonlib.explorers.text import brief, byte_alphabet, pieces

from .tiny import tiny_tokenizer

MODULE = "shared/bpe.js"
TEXTS = [
    "",
    " ",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
    "\tif x:\n\t\treturn\r\n\r\n",
    "a  b   c    d\n\n\n  e ",
    "it's we'll they've I'M don't 'quoted'",
    "x=1234567890; y = 3.14e-10 ½ ² ٣",
    "café naïve Ünïcödé İstanbul ß",
    "日本語のテキスト 한국어 Ελληνικά עברית",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 é (combining)",
    "no-break\u00a0space\u2003em\u3000ideographic\u0085nel\ufefffeff\u200bzero",
    "control \x00\x01\x1b[0m \x7f",
    "<|endoftext|>text<|start|>user\nhi<|end|> <|start|",
    inspect.getsource(json.decoder)[:6000],
]


def encode_all(node, tokenizer: Tokenizer, texts: list[str], merges: int | None = None):
    given = {"definition": json.loads(tokenizer.to_str()), "texts": texts, "merges": merges}
    return node(
        MODULE,
        """(() => {
            const tokenizer = m.bpe(input.definition);
            return input.texts.map((text) => tokenizer.encode(text, input.merges ?? Infinity));
        })()""",
        given,
    )


def with_split(pre_tokenizer) -> Tokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
KINDS = {
    "as trained": tiny_tokenizer,
    "digits one by one": lambda: with_split(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL])
    ),
    "digits together": lambda: with_split(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), BYTE_LEVEL])
    ),
    "prefix space": lambda: with_split(pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)),
    "no split": lambda: with_split(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_ids_as_the_library(node, kind: str):
    tokenizer = KINDS[kind]()
    found = encode_all(node, tokenizer, TEXTS)
    for text, tokens in zip(TEXTS, found, strict=True):
        assert [token["id"] for token in tokens] == tokenizer.encode(text, add_special_tokens=False).ids, (
            text[:60]
        )
        if kind != "prefix space":
            assert bytes(b for token in tokens for b in token["bytes"]) == text.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_words_as_the_library(node, kind: str):
    """A rare token would hide a wrong split; the words themselves do not."""
    tokenizer = KINDS[kind]()
    tricky = [
        *TEXTS[1:],
        ".\u0085.\ufeff.\u180e.\u200b.\u2028.",
        "!\u00a0!\u1680!\x1c!\x0b!",
        "²½٣x9 __a-b__",
    ]
    letters = byte_alphabet()
    expected = [
        [
            bytes(letters[c] for c in word).decode()
            for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)
        ]
        for text in tricky
    ]
    given = {"definition": json.loads(tokenizer.to_str()), "texts": tricky}
    assert node(MODULE, "input.texts.map(m.bpe(input.definition).split)", given) == expected


def test_the_same_ids_as_pico(node):
    tokenizer = Tokenizer.from_file(str(ZOO / "pico" / "tokenizer.json"))
    found = encode_all(node, tokenizer, TEXTS)
    for text, tokens in zip(TEXTS, found, strict=True):
        assert [token["id"] for token in tokens] == tokenizer.encode(text, add_special_tokens=False).ids, (
            text[:60]
        )


def test_fewer_merges_are_a_smaller_vocabulary(node):
    tokenizer = tiny_tokenizer()
    definition = json.loads(tokenizer.to_str())
    for merges in (0, 1, 40):
        smaller = json.loads(tokenizer.to_str())
        smaller["model"]["merges"] = definition["model"]["merges"][:merges]
        expected = [Tokenizer.from_str(json.dumps(smaller)).encode(text).ids for text in TEXTS]
        found = encode_all(node, tokenizer, TEXTS, merges)
        assert [[token["id"] for token in tokens] for tokens in found] == expected
    everything = encode_all(node, tokenizer, TEXTS, len(definition["model"]["merges"]))
    assert everything == encode_all(node, tokenizer, TEXTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: setattr(t, "normalizer", normalizers.NFC()), "the normalizer NFC"),
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()), "no byte-level alphabet"),
        (
            lambda t: setattr(
                t, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), BYTE_LEVEL])
            ),
            "the pre-tokenizer Punctuation",
        ),
        (lambda t: setattr(t, "model", models.WordPiece({"a": 0}, unk_token="a")), "the model WordPiece"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_in_one_sentence(node, change, words: str):
    tokenizer = tiny_tokenizer()
    change(tokenizer)
    expression = "(() => { try { m.bpe(input); return null; } catch (error) { return error.message; } })()"
    message = node(MODULE, expression, json.loads(tokenizer.to_str()))
    reason = f"This playground cannot follow a tokenizer with {words}"
    assert message == f"{reason}; use tokenizer.encode() in a cell instead."


def test_the_byte_alphabet_is_the_same_on_both_sides(node):
    assert node(MODULE, "m.byteAlphabet()") == [
        c for c, _ in sorted(byte_alphabet().items(), key=lambda kv: kv[1])
    ]


def test_spaces_are_counted_in_little_room(node):
    for text in ("\n        x", "a b    c", "\t\r\x1b", "x" * 50):
        assert node("shared/text.js", "m.brief(input, 20)", text) == brief(text, 20)
    assert brief("\n        x") == "↵·×8x"


def test_half_a_character_shows_its_bytes(tiny: Path, node):
    from lessonlib.engine import load_tokenizer

    tokenizer = load_tokenizer(tiny)
    ids = tokenizer.encode("a\U0001f9ff")
    assert pieces(tokenizer, ids)[0] == "a"
    assert "".join(pieces(tokenizer, ids)[1:]).replace("⟩⟨", " ") == "⟨f0 9f a7 bf⟩"
    label = "pictures/tokenizer.js"
    assert node(label, "m.label({bytes: [0xf0, 0x9f]})") == "⟨f0 9f⟩"
    assert node(label, "m.label({bytes: [0x20, 0xc3, 0xa9]})") == "·é"


def test_the_sentence(node, tiny: Path):
    text = "naïve 🙂"
    widget = explorers.tokenizer(tiny, text)
    found = encode_all(node, tiny_tokenizer(), [text])[0]
    assert widget.summary().startswith(f"7 characters (11 bytes) become {len(found)} tokens")
    size = node(
        "pictures/tokenizer.js", "m.measure(input.text, input.tokens)", {"text": text, "tokens": found}
    )
    assert size == {"characters": 7, "bytes": 11, "tokens": len(found), "ratio": 11 / len(found)}
