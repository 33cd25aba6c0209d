"""What one probe of the prefix cache tells about another tenant: with and without salts, counted and on the clock."""

from __future__ import annotations

import statistics
from typing import Any

from lessonlib.engine import LLM

from ..tenants import TenantSalt, seconds, timing_audit, tokens


def timing_figures(model: str = "pico-draft", trials: int = 400) -> list[dict[str, Any]]:
    """One row for each: salts off and on, 1 and 15 matching blocks, computed tokens and real seconds.

    The row that must show nothing on the clock (salts on, 15 blocks) has ``trials`` trials, which makes the standard
    error of its AUC 0.4 / sqrt(trials); the others have a quarter. The smaller the model, the smaller the leak: with
    "pico" it is plainer, and takes minutes.
    """
    llm = LLM(model)
    rows = []
    for salts in (None, TenantSalt()):
        for blocks in (1, 15):
            for observe in (tokens, seconds):
                decisive = salts is not None and blocks == 15 and observe is seconds
                count = trials if decisive else max(1, trials // 4)
                audit = timing_audit(llm, salts, blocks=blocks, trials=count, observe=observe)
                rows.append(
                    {
                        "salts": "on" if salts else "off",
                        "blocks": blocks,
                        "observed": observe.__name__,
                        "auc": audit.auc,
                        "standard_error": audit.error,
                        "median_hit": statistics.median(audit.hits),
                        "median_miss": statistics.median(audit.misses),
                        "reused_by_the_victim": audit.reused,
                        "data": f"{model} on {llm.model.device}, {count} trials, prompts of random tokens",
                    }
                )
    return rows
