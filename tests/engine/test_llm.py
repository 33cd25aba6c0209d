"""LLM: texts in, texts out; stop strings, streams, seeds, several answers, log-probabilities, chats."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lessonlib.engine import LLM, BlockPool, PagedCache, SamplingParams, Scheduler, generate, load_model
from lessonlib.engine.batching import ContinuousBatcher
from lessonlib.engine.errors import (
    BadParameter,
    CacheFull,
    EmptyPrompt,
    PromptTooLong,
    TokenizerMismatch,
    TokenOutOfRange,
)
from lessonlib.engine.model import Output

from .conftest import QUIET, refuses

GREEDY = SamplingParams(temperature=0, max_tokens=24)


class Script:
    """Stands where the model stood and says these tokens, one after another, whatever the prompt."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, llm: LLM, tokens: list[int], prompt_length: int):
        self.config, self.tokens, self.prompt_length = llm.model.config, tokens, prompt_length

    def __call__(self, ids, cache, at) -> Output:
        positions = [p for _, start, count in cache.spans for p in range(start, start + count)]
        logits = torch.zeros(1, len(at), self.config.vocab_size)
        for i, place in enumerate(at.tolist()):
            logits[0, i, self.tokens[(positions[place] + 1 - self.prompt_length) % len(self.tokens)]] = 50
        return Output(logits)


def scripted(llm: LLM, tokens: list[int]) -> LLM:
    """An LLM that will say exactly these tokens after a prompt of one token."""
    actor = copy.copy(llm)
    actor.model = Script(llm, tokens, 1)  # type: ignore[assignment]
    pool = BlockPool(128, enable_prefix_caching=False)
    actor.batcher = ContinuousBatcher(actor.model, PagedCache(llm.model.config, 128), Scheduler(pool))
    return actor


def told(llm: LLM, tokens: list[int], **settings) -> tuple[str, list[str], str]:
    """(text of generate, pieces of stream, finish reason) when the model says these tokens."""
    actor = scripted(llm, tokens)
    params = SamplingParams(temperature=0, max_tokens=len(tokens), ignore_eos=True, **settings)
    output = actor.generate([[5]], params)[0].outputs[0]
    return output.text, list(actor.stream([5], params)), output.finish_reason


def stopped(text_so_far: list[str], stop: list[str]) -> str | None:
    """By the definition: after which token does a stop text stand in the text, and what precedes the first one?"""
    for text in text_so_far:
        if found := [text.index(s) for s in stop if s in text]:
            return text[: min(found)]
    return None


# Texts with characters of one to four bytes, which the tokenizer cuts anywhere.
WORDS = st.lists(
    st.sampled_from(["a", "ab", "\n", " b", "é", "漢字", "👩‍👩‍👧", "\n\n", "ba", "x = 1"]),
    min_size=1,
    max_size=8,
)
STOPS = st.lists(st.sampled_from(["b", "ab", "\n\n", "字", "👧", "‍👩", "aba", "é漢", "= 1"]), max_size=3)


@QUIET
@given(WORDS.map("".join), STOPS)
@example("1ab", ["b", "ab"])  # one token completes both: the text ends before the earlier one
@example("1ab", ["ab", "b"])
def test_stop_texts_by_their_definition(draft, text, stop):
    ids = draft.tokenizer.encode(text)
    # Bytes of a character that is not complete show as U+FFFD at the end: they are no text yet.
    so_far = [draft.tokenizer.decode(ids[: i + 1]).rstrip("\ufffd") for i in range(len(ids))]
    expected = stopped(so_far, stop)
    whole, pieces, reason = told(draft, ids, stop=stop)
    assert whole == (text if expected is None else expected)
    assert reason == ("length" if expected is None else "stop")
    assert "".join(pieces) == whole  # so no piece was ever taken back
    assert all(pieces)
    assert not any("\ufffd" in piece for piece in pieces)


@QUIET
@given(st.lists(st.integers(0, 4095), min_size=1, max_size=12))
def test_any_tokens_at_all_stream_to_their_decoded_text(draft, ids):
    """Random tokens are mostly broken UTF-8."""
    whole, pieces, _ = told(draft, ids)
    assert "".join(pieces) == whole == draft.tokenizer.decode(ids)


def test_text_is_streamed_as_soon_as_it_is_certain(draft):
    ids = draft.tokenizer.encode("one two\n three")
    _, pieces, _ = told(draft, ids)
    assert pieces == draft.tokenizer.tokens(ids)  # without stop texts: every token at once
    newline = ids.index(draft.tokenizer.encode("\n")[0])
    _, held, _ = told(draft, ids, stop=["\n\n"])
    texts = draft.tokenizer.tokens(ids)
    # The newline could have begun the stop text, so it comes with the token that shows that it did not.
    assert held == [*texts[:newline], texts[newline] + texts[newline + 1], *texts[newline + 2 :]]


def test_half_a_character_is_never_shown(draft):
    ids = draft.tokenizer.encode("👩")
    assert len(ids) > 1
    assert told(draft, ids)[1] == ["👩"]
    text, pieces, _ = told(draft, ids[:-1])  # the limit cuts it off: what is there is shown, as decode would
    assert text == "".join(pieces) == draft.tokenizer.decode(ids[:-1])


def test_a_stop_text_ends_a_real_generation(draft):
    free = draft.generate("def f(x):", SamplingParams(temperature=0, max_tokens=40))[0].outputs[0]
    stop = free.text[9:12]
    ended = draft.generate("def f(x):", SamplingParams(temperature=0, max_tokens=40, stop=stop))[0].outputs[0]
    assert ended.text == free.text[: free.text.index(stop)]
    assert ended.finish_reason == "stop"
    assert ended.token_ids == free.token_ids[: len(ended.token_ids)]
    assert len(ended.token_ids) < 40  # and no work was done after it


def test_the_stream_equals_generate(draft):
    for params in (
        GREEDY,
        SamplingParams(seed=4, max_tokens=30, top_p=0.9),
        SamplingParams(seed=4, n=2, max_tokens=9),
    ):
        assert (
            "".join(draft.stream("import ", params)) == draft.generate("import ", params)[0].outputs[0].text
        )


def test_an_abandoned_stream_leaves_nothing_behind(draft):
    stream = draft.stream("import ", GREEDY)
    next(stream)
    stream.close()
    assert not torch.is_inference_mode_enabled()
    assert draft.generate("import ", GREEDY)[0].outputs[0].text == "".join(draft.stream("import ", GREEDY))


def test_a_bad_prompt_is_refused_when_stream_is_called(draft):
    with refuses(EmptyPrompt):
        draft.stream("", GREEDY)
    with refuses(BadParameter, match="one prompt"):
        draft.stream(["a", "b"], GREEDY)
    with refuses(BadParameter, match="not a dict"):
        draft.stream("a", {"temperature": 0})
    with refuses(EmptyPrompt):
        draft.stream([], GREEDY)
    with refuses(CacheFull):
        LLM("pico-draft", num_kv_blocks=2, block_size=4).stream("a", GREEDY)


def test_the_engine_s_loop_and_the_facade_agree(draft):
    prompts = ["def f(", "class A:\n", "import os"]
    outputs = draft.generate(prompts, GREEDY)
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = draft.tokenizer.encode(prompt)
        assert output.prompt == prompt
        assert output.prompt_token_ids == ids
        assert ids + output.outputs[0].token_ids == generate(draft.model, ids, 24)
        assert output.outputs[0].text == draft.tokenizer.decode(output.outputs[0].token_ids)


def test_prompts_come_in_every_shape(draft):
    ids = draft.tokenizer.encode("def f(")
    expected = draft.generate("def f(", GREEDY)[0].outputs[0].text
    texts = ["def f(", ["def f("], ("def f(",)]
    lists = [ids, [ids], tuple(ids), [np.int64(i) for i in ids]]
    arrays = [np.array(ids), np.array([ids]), torch.tensor(ids), torch.tensor([ids]), [torch.tensor(ids)]]
    for prompts in [*texts, *lists, *arrays]:
        (output,) = draft.generate(prompts, GREEDY)
        assert output.outputs[0].text == expected
    assert [o.outputs[0].text for o in draft.generate(["def f(", ids], GREEDY)] == [expected] * 2
    assert draft.generate([], GREEDY) == []


@pytest.mark.parametrize(
    ("prompts", "params", "error"),
    [
        ("", None, EmptyPrompt),
        (["a", ""], None, EmptyPrompt),
        ([[]], None, EmptyPrompt),
        (["a" * 20_000], None, PromptTooLong),
        ([[5, 4096]], None, TokenOutOfRange),
        ([[5, -1]], None, TokenOutOfRange),
        (None, None, BadParameter),
        (5, None, BadParameter),
        (b"abc", None, BadParameter),
        ([b"abc"], None, BadParameter),
        (["a", b"abc"], None, BadParameter),
        (bytearray(b"abc"), None, BadParameter),
        ([None], None, BadParameter),
        (["\ud800"], None, BadParameter),
        ([[1.5]], None, BadParameter),
        ({"prompt": "a"}, None, BadParameter),
        (["a", "b"], [SamplingParams()], BadParameter),
        ("a", {"temperature": 0}, BadParameter),
        ("a", [None], BadParameter),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_what_cannot_be_done_is_refused_before_any_work(draft, prompts, params, error):
    hook = draft.model.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    try:
        with refuses(error):
            draft.generate(prompts, params)
    finally:
        hook.remove()


def test_one_bad_prompt_among_many_is_found_before_any_work(draft):
    small = LLM("pico-draft", max_num_seqs=1)
    hook = small.model.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    with refuses(TokenOutOfRange):
        small.generate([[5], [6], [9999]], GREEDY)
    hook.remove()


def test_a_seed_means_the_same_whatever_else_is_in_the_batch(draft):
    mine = SamplingParams(seed=11, max_tokens=12)
    other = SamplingParams(temperature=1.3, max_tokens=20)
    alone = draft.generate("import ", mine)[0].outputs[0].token_ids
    first = draft.generate(["import ", "x = ", "def f("], [mine, other, other])[0]
    last = draft.generate(["def f(", "x = ", "import "], [other, other, mine])[2]
    assert first.outputs[0].token_ids == last.outputs[0].token_ids == alone
    few = LLM("pico-draft", max_num_seqs=2, seed=99)
    assert few.generate(["x = ", "y", "import "], [other, other, mine])[2].outputs[0].token_ids == alone


def test_a_seed_is_a_whole_number():
    for wrong in (None, "x", 1.5, True):
        with refuses(BadParameter, match="seed="):
            LLM("pico-draft", seed=wrong)


def test_without_seeds_the_engine_s_seed_makes_a_session_repeatable():
    def session(seed: int) -> list[list[int]]:
        llm = LLM("pico-draft", seed=seed)
        params = SamplingParams(max_tokens=8)
        return [
            o.outputs[0].token_ids for _ in range(2) for o in llm.generate(["import ", "import "], params)
        ]

    first = session(0)
    assert session(0) == first
    assert session(1) != first
    assert len({tuple(ids) for ids in first}) == 4  # no two requests share their random numbers


def test_n_answers_are_different_and_each_is_repeatable(draft):
    several = draft.generate("import ", SamplingParams(seed=3, n=4, max_tokens=10))[0].outputs
    assert [output.index for output in several] == [0, 1, 2, 3]
    assert len({tuple(output.token_ids) for output in several}) == 4
    assert (
        several[0].token_ids
        == draft.generate("import ", SamplingParams(seed=3, max_tokens=10))[0].outputs[0].token_ids
    )
    again = draft.generate("import ", SamplingParams(seed=3, n=4, max_tokens=10))[0].outputs
    assert again == several


@torch.inference_mode()
def test_logprobs_are_the_model_s(draft):
    params = SamplingParams(temperature=1.2, seed=5, max_tokens=8, logprobs=3, top_k=50)
    result = draft.generate("def ", params)[0]
    ids = result.prompt_token_ids + result.outputs[0].token_ids
    expected = draft.model(torch.tensor([ids])).logits.log_softmax(-1)[
        0, len(result.prompt_token_ids) - 1 : -1
    ]
    assert len(result.outputs[0].logprobs) == 8
    for token, shown, row in zip(
        result.outputs[0].token_ids, result.outputs[0].logprobs, expected, strict=True
    ):
        assert (
            next(iter(shown)) == token
        )  # the chosen one first, as in vLLM, even when it is not among the top
        assert set(shown) == {token, *row.topk(3).indices.tolist()}
        for i, logprob in shown.items():
            assert logprob == pytest.approx(row[i].item(), abs=1e-4)
    assert any(len(shown) == 4 for shown in result.outputs[0].logprobs)
    only = draft.generate("def ", SamplingParams(seed=5, max_tokens=3, logprobs=0))[0].outputs[0]
    assert [list(shown) for shown in only.logprobs] == [[token] for token in only.token_ids]
    assert draft.generate("def ", GREEDY)[0].outputs[0].logprobs is None


def test_repetition_penalties_end_a_loop(draft):
    """The draft model loops when greedy; each penalty breaks the loop."""

    def variety(**settings) -> int:
        params = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True, **settings)
        return len(set(draft.generate("import os\n\ndef walk(", params)[0].outputs[0].token_ids))

    plain = variety()
    assert variety(repetition_penalty=1.4) > plain
    assert variety(presence_penalty=1.5) > plain
    assert variety(frequency_penalty=1.5) > plain


def test_a_bias_can_force_a_token_or_forbid_it(draft):
    first = draft.generate("def ", GREEDY)[0].outputs[0].token_ids[0]
    for bias, forced in (({7: 100.0}, True), ({first: -100.0}, False)):
        params = SamplingParams(temperature=0, max_tokens=5, logit_bias=bias, ignore_eos=True)
        ids = draft.generate("def ", params)[0].outputs[0].token_ids
        assert ids == [7] * 5 if forced else first not in ids
    with refuses(TokenOutOfRange, match="4096"):
        draft.generate(["def ", "class "], SamplingParams(logit_bias={4096: 1.0}))


def test_ignore_eos_and_the_end_of_text(draft):
    ids = draft.tokenizer.encode("ab")
    actor = scripted(draft, [*ids, 0, *ids])
    params = SamplingParams(temperature=0, max_tokens=2 * len(ids) + 1)
    ended = actor.generate([[5]], params)[0].outputs[0]
    assert (ended.text, ended.finish_reason, ended.token_ids) == ("ab", "stop", [*ids, 0])
    on = actor.generate([[5]], SamplingParams(temperature=0, max_tokens=params.max_tokens, ignore_eos=True))[
        0
    ].outputs[0]
    assert (on.text, on.finish_reason) == ("abab", "length")


def test_metrics_count_what_was_done(draft):
    output = draft.generate([[5, 6, 7]], SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, n=2))[0]
    # The last token is never run, and the second answer shares all of the prompt that it can.
    assert (output.metrics.tokens_computed, output.metrics.tokens_cached) == (2 * (3 + 5 - 1) - 2, 2)
    assert output.metrics.time_to_first_token > 0
    assert output.metrics.time_per_output_token > 0
    one = draft.generate([[5]], SamplingParams(max_tokens=1))[0]
    assert one.metrics.time_per_output_token is None


def test_chats_go_through_the_template(draft):
    user = {"role": "user", "content": "hello"}
    output = draft.chat([user], GREEDY)[0]
    assert output.prompt == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert output.prompt_token_ids == draft.tokenizer.encode(output.prompt)
    assert output.outputs[0].text == draft.generate(output.prompt, GREEDY)[0].outputs[0].text
    two = draft.chat([[user], [{**user, "content": "bye"}]], GREEDY)
    assert [o.prompt.count("bye") for o in two] == [0, 1]
    assert two[0].outputs == output.outputs
    for wrong in ("hi", [("user", "hi")], [{"role": "user"}], [user, "hi"], [[user], ["hi"]]):
        with refuses(BadParameter, match="A chat is a list of messages"):
            draft.chat(wrong, GREEDY)


def test_a_model_without_a_template_cannot_chat(draft):
    llm = copy.deepcopy(draft)
    llm.tokenizer.chat_template = None
    with refuses(TokenizerMismatch, match="no chat template"):
        llm.chat([{"role": "user", "content": "hello"}])


def test_an_engine_can_be_copied_and_pickled(draft):
    expected = draft.generate("def f(", GREEDY)[0].outputs
    assert copy.deepcopy(draft).generate("def f(", GREEDY)[0].outputs == expected
    assert pickle.loads(pickle.dumps(draft)).generate("def f(", GREEDY)[0].outputs == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    llm = LLM("pico-draft", dtype=dtype)
    assert llm.model.dtype == load_model("pico-draft", dtype).dtype == getattr(torch, dtype)
    assert len(llm.generate("def f(", GREEDY)[0].outputs[0].token_ids) == 24


def test_senseless_engines_are_refused():
    with refuses(BadParameter, match="^max_num_seqs=0 "):
        LLM("pico-draft", max_num_seqs=0)
    with refuses(BadParameter, match="'int3' is not known; choose one of float32, bfloat16, float16"):
        LLM("pico-draft", dtype="int3")
    with refuses(BadParameter, match="gpu is not available"):
        LLM("pico-draft", device="gpu")


def test_the_progress_bar_counts_prompts(draft, capsys):
    draft.generate(["a", "b", "c"], SamplingParams(max_tokens=1), use_tqdm=True)
    assert "3/3" in capsys.readouterr().err
