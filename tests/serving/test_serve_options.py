"""`lesson serve`: what is switched on by default, and by each option."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from lessonlib import cli
from lessonlib.security.rate_limiter import LARGEST
from lessonlib.serving.errors import ApiError
from lessonlib.serving.guards import Guards
from lessonlib.serving.server import Server
from lessonlib.serving.shared import Shared

from .conftest import NAME

PROMPT = "You are Aurelia, keeper of the seventeen silver gates beyond the northern harbour.\n"


@pytest.fixture
def started(monkeypatch):
    """What a command line would have started, up to the moment it would listen."""
    found: list[Shared] = []
    monkeypatch.setattr(Server, "run", lambda self: found.append(self.config.app.state.shared))  # type: ignore

    def start(*options: str) -> Shared:
        assert cli.main(["serve", NAME, "--port", "0", "--no-logs", *options]) == 0
        return found.pop()

    return start


def test_by_default_what_costs_nobody_anything_is_on(started):
    guards = started().guards
    assert guards.surface.before_bias and guards.salts is not None
    assert guards.detector is not None and not guards.detector_blocks
    assert (guards.limiter, guards.validator, guards.output) == (None, None, None)
    limits = guards.limits
    assert (limits.deadline, limits.kv_percent, limits.queue, limits.tenant_requests) == (300, 100, 256, None)
    assert started("--api-key", "ann:x").guards.limits.tenant_requests == 64


def test_each_guard_has_its_switch(started, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT)
    shared = started(
        *("--requests-per-minute", "7", "--validate", "block", "--filter-output", "block"),
        *("--extraction", "block", "--share-prefixes", "--raw-logprobs", "--max-waiting", "3"),
        *("--max-concurrent", "5", "--deadline", "1.5", "--kv-percent", "50", "--system-prompt", str(file)),
    )
    guards = shared.guards
    assert guards.limiter is not None and guards.limiter.requests_per_minute == 7
    assert guards.validator is not None and guards.validator.mode == "block"
    assert guards.output is not None and guards.output.mode == "block"
    assert guards.detector is not None and guards.detector_blocks
    assert guards.salts is None and not guards.surface.before_bias
    limits = guards.limits
    assert (limits.queue, limits.tenant_requests, limits.deadline, limits.kv_percent) == (3, 5, 1.5, 50)
    assert shared.model.system_prompt == PROMPT.strip()
    off = started("--extraction", "off", "--deadline", "0", "--kv-percent", "0").guards
    assert (off.detector, off.limits.deadline, off.limits.kv_percent) == (None, None, None)


@pytest.mark.parametrize(("options", "kept"), [((), True), (("--filter-output", "off"), False)])
def test_a_system_prompt_is_kept_unless_that_is_switched_off(started, tmp_path, options, kept):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    guards = started("--system-prompt", str(tmp_path / "prompt.txt"), *options).guards
    assert (guards.output is not None and "silver" not in guards.output.filter(PROMPT)) == kept


def test_all_of_them_can_be_off_at_once(started):
    guards = started("--no-guards", "--validate", "block", "--requests-per-minute", "1").guards
    bare = Guards.off()
    assert guards.limits == bare.limits and guards.surface.before_bias is bare.surface.before_bias is False
    assert guards.surface.max_biased_tokens is guards.surface.decimals is None
    assert (guards.limiter, guards.validator, guards.output, guards.salts, guards.detector) == (None,) * 5


@pytest.mark.parametrize(
    ("text", "said"), [("Be kind.", "letters or digits"), ("word " * 3000, "context"), (b"\xff\xfe", "UTF-8")]
)
def test_a_system_prompt_that_cannot_be_used_is_one_sentence(started, tmp_path, capsys, text, said):
    file = tmp_path / "prompt.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cli.main(["serve", NAME, "--port", "0", "--system-prompt", str(file)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def refused(capsys, *options: str) -> str:
    """What it says (no traceback) when it does not start."""
    assert cli.main(["serve", NAME, "--port", "0", "--no-logs", *options]) != 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_an_empty_system_prompt_is_refused(started, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text(" \n")
    assert "is empty" in refused(capsys, "--system-prompt", str(tmp_path / "prompt.txt"))


@pytest.mark.parametrize(
    "options",
    [
        ("--deadline", "1e12"),
        ("--deadline", "inf"),
        ("--requests-per-minute", "5000000000"),
        ("--tokens-per-minute", "5000000000"),
    ],
    ids=str,
)
def test_numbers_beyond_what_is_counted_are_refused(started, capsys, options):
    assert f"Invalid value for '{options[0]}'" in refused(capsys, *options)


def test_the_largest_numbers_are_taken(started):
    most = ("--requests-per-minute", str(LARGEST), "--tokens-per-minute", str(LARGEST))
    guards = started("--deadline", "999999999", *most).guards
    assert guards.limits.deadline == 999999999
    assert guards.limiter.requests_per_minute == guards.limiter.tokens_per_minute == LARGEST


def test_without_guards_no_filter_has_to_hold_the_system_prompt_and_the_queue_stays(started, tmp_path):
    (tmp_path / "prompt.txt").write_text("Be kind.")  # too short for the filter
    shared = started("--no-guards", "--max-waiting", "3", "--system-prompt", str(tmp_path / "prompt.txt"))
    assert shared.model.system_prompt == "Be kind."
    assert (shared.guards.output, shared.guards.limits.queue) == (None, 3)


@pytest.mark.parametrize("value", ["", " ", "correct horse battery"])
def test_a_key_variable_that_is_not_one_key_is_refused(started, capsys, monkeypatch, value):
    monkeypatch.setenv("LESSON_API_KEY", value)
    assert refused(capsys).startswith("lesson: LESSON_API_KEY is empty or has spaces")
    assert started("--api-key", "bob:x").keys  # the option replaces it


@pytest.mark.parametrize("option", ["", "bob:", "bob:a b"])
def test_an_option_that_is_no_key_is_refused(started, capsys, option):
    assert refused(capsys, "--api-key", option).startswith("lesson: An API key is empty")


def test_the_option_replaces_the_variable(started, monkeypatch):
    monkeypatch.setenv("LESSON_API_KEY", "ann:first")
    keys = started().keys
    assert keys.identify(Headers({"x-api-key": "ann:first"})) == "ann"
    keys = started("--api-key", "bob:second").keys
    assert keys.identify(Headers({"x-api-key": "second"})) == "bob"
    with pytest.raises(ApiError):
        keys.identify(Headers({"x-api-key": "first"}))
