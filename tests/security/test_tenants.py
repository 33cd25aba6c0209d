"""Salts keep tenants apart and the cache useful, and the audit would notice if they did not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.engine import LLM
from lessonlib.engine.errors import BadParameter
from lessonlib.security.evaluation.timing import timing_figures
from lessonlib.security.tenants import TenantSalt, auc, seconds, timing_audit, tokens

from ..engine.conftest import QUIET, refuses

SECRET = b"sixteen bytes or more"


@QUIET
@given(st.text(min_size=1), st.text(min_size=1))
def test_one_salt_a_tenant_and_the_same_in_every_process(one, other):
    salts, elsewhere = TenantSalt(SECRET, period=None), TenantSalt(SECRET, period=None)
    assert salts.salt(one) == elsewhere.salt(one)
    assert (salts.salt(one) == salts.salt(other)) == (one == other)
    assert len(salts.salt(one)) == 64 and salts.salt(one) != TenantSalt(SECRET[::-1], None).salt(one)


def test_neither_tenant_nor_secret_appears():
    salts = TenantSalt(SECRET)
    told = [salts.salt("acme"), repr(salts), str(salts)]
    for hidden in ("acme", b"acme".hex(), SECRET.decode(), SECRET.hex()):
        assert not any(hidden in text for text in told)
    assert TenantSalt().salt("acme") != TenantSalt().salt("acme")  # a secret of its own each time


def test_salts_rotate_with_time_and_on_demand():
    now = 1000.0
    salts = TenantSalt(SECRET, period=100, clock=lambda: now)
    first = salts.salt("acme")
    now = 1099.9
    assert salts.salt("acme") == first
    now = 1100.0
    second = salts.salt("acme")
    assert second != first
    salts.rotate()
    assert salts.salt("acme") not in (first, second)
    salts.rotate(SECRET)
    assert salts.salt("acme") == second
    now = 5e8
    assert TenantSalt(SECRET, None).salt("acme") == TenantSalt(SECRET, None, lambda: 0.0).salt("acme")


def test_what_has_no_meaning_is_refused():
    for secret in (b"short", "a text of many letters", b""):
        with refuses(BadParameter):
            TenantSalt(secret)
    for period in (0, -1, float("nan")):
        with refuses(BadParameter):
            TenantSalt(SECRET, period)
    for tenant in ("", None, 7):
        with refuses(BadParameter):
            TenantSalt(SECRET).salt(tenant)


# ---------------------------------------------------------------- the audit


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("pico-draft")


def clock(noise: float):
    """A clock that never varies but by its own random numbers: 5 ms a pass, 0.1 ms a token, and the noise in ms."""
    random = np.random.default_rng(0)
    return lambda output: 5 + 0.1 * output.metrics.tokens_computed + noise * random.standard_normal()


def test_without_salts_one_probe_tells(llm):
    counted = timing_audit(llm, blocks=15, trials=5)
    assert counted.auc == 1.0
    assert set(counted.hits) == {1.0} and set(counted.misses) == {241.0}
    noisy = timing_audit(llm, blocks=15, trials=40, observe=clock(noise=12))  # 24 ms apart: d' = 2
    assert 0.85 <= noisy.auc < 1


def test_with_salts_it_tells_nothing_and_the_victim_still_has_its_cache(llm):
    counted = timing_audit(llm, TenantSalt(), blocks=15, trials=5)
    assert counted.auc == 0.5
    assert set(counted.hits) == set(counted.misses) == {241.0}
    assert counted.reused == 240
    noisy = timing_audit(llm, TenantSalt(), blocks=1, trials=400, observe=clock(noise=12))
    assert noisy.auc == pytest.approx(0.5, abs=0.05)
    assert noisy.error == pytest.approx(0.0204, abs=1e-4)


class OneForAll(TenantSalt):
    def salt(self, tenant: str) -> str:
        return super().salt("everybody")


def test_the_audit_finds_a_salt_that_is_none(llm):
    assert timing_audit(llm, OneForAll(), blocks=2, trials=3).auc == 1.0


def test_a_cache_that_is_off_is_not_taken_for_a_safe_one():
    audit = timing_audit(LLM("pico-draft", enable_prefix_caching=False), blocks=2, trials=3)
    assert (audit.auc, audit.reused) == (0.5, 0)


def test_audits_do_not_disturb_each_other(llm):
    assert [timing_audit(llm, blocks=1, trials=3).auc for _ in range(3)] == [1.0] * 3


def test_seconds_are_those_of_the_request(llm):
    output = llm.generate("def fib(n):")[0]
    assert seconds(output) == output.metrics.time_to_first_token > 0
    assert tokens(output) == output.metrics.tokens_computed


def test_auc_by_its_definition():
    assert auc([1, 2], [3, 4]) == 1 and auc([3, 4], [1, 2]) == 0
    assert auc([1, 3], [2, 2]) == 0.5 and auc([1, 1], [1, 1]) == 0.5
    assert auc([1, 2], [2]) == 0.75


def test_audits_of_nothing_are_refused(llm):
    for settings in ({"blocks": 0}, {"trials": 0}, {"trials": 2.5}):
        with refuses(BadParameter):
            timing_audit(llm, **settings)


def test_figures_name_their_data():
    rows = {(r["salts"], r["blocks"], r["observed"]): r for r in timing_figures(trials=8)}
    assert len(rows) == 8
    assert [rows[salts, 15, "tokens"]["auc"] for salts in ("off", "on")] == [1.0, 0.5]
    assert [rows[salts, 15, "tokens"]["median_hit"] for salts in ("off", "on")] == [1, 241]
    clock = rows["on", 15, "seconds"]
    assert "8 trials" in clock["data"] and "2 trials" in rows["off", 15, "seconds"]["data"]
    assert clock["median_hit"] > 0 and clock["reused_by_the_victim"] == 240
