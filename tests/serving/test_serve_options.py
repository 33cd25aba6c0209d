"""`lesson serve`: what is switched on by default, and by each option."""

from __future__ import annotations

import pytest

from lessonlib import cli
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
