"""The shipped models are ordinary Hugging Face folders: transformers reads the same models and tokenizer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from lessonlib.engine import (
    LLM,
    SamplingParams,
    load_config,
    load_model,
    load_tokenizer,
    resolve,
    shipped_models,
)

from .conftest import QUIET

TEXTS = [
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
    "\tmixed\t tabs  and   spaces \n\n\n    end",
    "naïve café — Ünïcödé, 漢字かな, العربية, עברית, हिन्दी",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200b\ufeff \u2028 \x00\x07",
    "<|im_start|>user\nhi<|im_end|><|endoftext|>",
    "0xFF 1_000_000 3.14e-10 __init__ __a__b c.d(e)[f]{g}",
    " ",
    "a",
]
PROMPTS = [
    "def read_json(path):",
    "class Stack:\n    def __init__(self):",
    "import os\n\ndef walk(",
    "    for i in range(",
]


@pytest.fixture(scope="module", params=["pico", "pico-draft"])
def pair(request):
    """Our model as LLM, theirs, and their tokenizer, from the same folder."""
    folder = resolve(request.param)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return LLM(request.param), theirs, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "most_parameters", "most_bytes"), [("pico", 12e6, 20e6), ("pico-draft", 2.2e6, 4.4e6)]
)
def test_sizes_keep_their_promise(name, most_parameters, most_bytes):
    model, file = load_model(name), resolve(name) / "model.safetensors"
    assert sum(p.numel() for p in model.parameters()) == load_config(name).num_parameters <= most_parameters
    assert file.stat().st_size <= most_bytes
    assert load_config(name).max_position_embeddings >= 1024
    assert load_model(name, "bfloat16").dtype == torch.bfloat16


def test_both_models_speak_the_same_tokens():
    assert shipped_models() == ["pico", "pico-draft"]
    files = [(resolve(name) / "tokenizer.json").read_bytes() for name in shipped_models()]
    assert files[0] == files[1]
    tokenizer = load_tokenizer("pico")
    assert tokenizer.encode("<|endoftext|><|im_start|><|im_end|>") == [0, 1, 2]
    assert tokenizer.vocab_size == tokenizer.largest_id + 1 == load_config("pico").vocab_size
    assert load_config("pico").eos_token_ids == (0, 2)  # the end of a text and the end of a turn


def test_the_tokenizer_is_theirs(pair):
    llm, _, tokenizer = pair
    for text in TEXTS:
        ids = llm.tokenizer.encode(text)
        assert ids == tokenizer(text)["input_ids"]
        assert llm.tokenizer.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids) == text
        assert llm.tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True)
    assert llm.tokenizer.eos_token_id == tokenizer.eos_token_id == 0
    assert llm.tokenizer.bos_token_id is tokenizer.bos_token_id is None


@QUIET
@given(st.text(max_size=60))
def test_any_text_survives_the_round_trip(text):
    tokenizer = load_tokenizer("pico-draft")
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize("generation_prompt", [True, False])
def test_the_chat_template_is_theirs(pair, generation_prompt):
    llm, _, tokenizer = pair
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Write `f(x)`.\n{{ 1 + 1 }} é"},
        {"role": "assistant", "content": "def f(x):\n    pass"},
        {"role": "user", "content": ""},
    ]
    for messages in (chat, chat[1:2]):
        mine = llm.tokenizer.apply_chat_template(messages, add_generation_prompt=generation_prompt)
        theirs = {"tokenize": False, "add_generation_prompt": generation_prompt}
        assert mine == tokenizer.apply_chat_template(messages, **theirs)
        assert llm.tokenizer.encode(mine, add_special_tokens=False) == tokenizer(mine)["input_ids"]


def test_the_same_40_greedy_tokens(pair):
    llm, theirs, _ = pair
    outputs = llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=40))
    for output in outputs:
        ids = torch.tensor([output.prompt_token_ids])
        reference = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False, pad_token_id=0
        )
        assert output.outputs[0].token_ids == reference[0, ids.shape[1] :].tolist()


@torch.inference_mode()
def test_the_same_logits_over_a_long_text(pair):
    llm, theirs, _ = pair
    ids = torch.tensor([llm.tokenizer.encode("".join(TEXTS) * 4)[:400]])
    assert (llm.model(ids).logits - theirs(ids).logits).abs().max() < 1e-4


def test_a_chat_is_answered():
    """Not what is said, but that an answer begins and ends."""
    answer = LLM("pico").chat(
        [{"role": "user", "content": "Write a function named read_lines. Read a file and return its lines."}],
        SamplingParams(temperature=0, max_tokens=80),
    )[0]
    assert answer.prompt.endswith("<|im_start|>assistant\n")
    assert answer.outputs[0].text.startswith("def read_lines(")
    assert answer.outputs[0].finish_reason == "stop"
    assert "<|im_end|>" not in answer.outputs[0].text
