"""The rules of speculative decoding, as plain functions: which drafts stand, and how many are worth making.

Sources: Leviathan et al. 2023 (arXiv:2211.17192 §2.3, §3); Chen et al. 2023 (arXiv:2302.01318, algorithm 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .costs import stored_weight_bytes
from .model import Transformer
from .sampling import draw, uniform


def agree(drafts: Sequence[int], own: Iterable[int]) -> list[int]:
    """The drafts that match the target's own choices, then the target's next token.

    own: the target's token in each of the len(drafts) + 1 places, asked for only as far as it matters.
    """
    tokens: list[int] = []
    for draft, token in zip([*drafts, None], own, strict=False):
        tokens.append(token)
        if token != draft:
            break
    return tokens


def accept(
    drafts: Sequence[int], q: Tensor | None, p: Tensor, generator: torch.Generator | None = None
) -> list[int]:
    """Rejection sampling: drafts that stand, then one token more, all of them distributed as the target's own.

    q: the probabilities that the drafts were drawn from, (k, vocab). p: the target's, (k + 1, vocab). A draft stands
    with probability min(1, p / q). In the place of the first that does not stand comes a token of which p has more than
    q, drawn from max(0, p - q) rescaled; when all stand, the pass has paid for one more, the bonus token, from p.

    q None: the drafts were looked up, not drawn (q is 1 at the draft). The rule then comes to this: draw from p, and go
    on while the draft says the same. Each token takes one random number, as it does without drafts.
    """
    if q is None:
        return agree(drafts, (draw(row, generator) for row in p))
    place = torch.tensor(drafts, dtype=torch.int64, device=p.device)[:, None]
    wanted, offered = p[:-1].gather(1, place).flatten().tolist(), q.gather(1, place).flatten().tolist()
    for i in range(len(drafts)):
        if uniform(generator) * offered[i] >= wanted[i]:
            more = (p[i] - q[i]).clamp_min(0)  # nothing at all, if p and q differ by rounding alone
            return [*drafts[:i], draw(more if more.any() else p[i], generator)]
    return [*drafts, draw(p[-1], generator)]


def expected_tokens(acceptance: float, k: int) -> float:
    """Tokens that a pass of the target brings with k drafts, each accepted with this probability.

    1 + a + … + a^k = (1 - a^(k + 1)) / (1 - a): Leviathan et al. 2023, equation 1.
    """
    return float(sum(acceptance**i for i in range(k + 1)))


def speedup(acceptance: float, k: int, cost_ratio: float, verify_cost: float = 0.0) -> float:
    """How many times faster k drafts make decoding: Leviathan et al. 2023, theorem 3.8 (there, verify_cost is 0).

    cost_ratio: a pass of the draft model; verify_cost: what each draft adds to the target's pass. Both as parts of the
    target's pass over one token.
    """
    return expected_tokens(acceptance, k) / (1 + k * (cost_ratio + verify_cost))


# What one more token adds to a pass, by the format of the weights: measured on a CPU in the shapes of SmolLM2-135M, at
# four drafts. Kernels that read few bytes soon wait for arithmetic instead.
VERIFY = {"int8": 0.06, "int4": 0.08}
VERIFY_FLOATS = 0.03


class Costs(NamedTuple):
    """What one draft costs, as parts of a pass of the target over one token: to make it, and to check it."""

    draft: float = 0.0
    verify: float = VERIFY_FLOATS

    @classmethod
    def of(cls, target: Transformer, draft: Transformer | None = None) -> Costs:
        """Costs where memory decides: a pass takes as long as its weights, as they are stored, take to be read."""
        made = 0.0 if draft is None else stored_weight_bytes(draft) / stored_weight_bytes(target)
        return cls(made, VERIFY.get(target.quantization or "", VERIFY_FLOATS))

    def best_k(self, acceptance: float, limit: int) -> int:
        """The number of drafts, up to ``limit``, that makes decoding fastest; 0 when none pays."""
        best, tokens = 1.0, 1.0  # without drafts
        for k in range(1, limit + 1):  # the speed-up rises up to its one maximum, and then falls
            tokens += acceptance**k
            if (pace := tokens / (1 + k * (self.draft + self.verify))) <= best:
                return k - 1
            best = pace
        return limit


@dataclass
class Pace:
    """The running acceptance rate of one request; the older a pass, the less it counts."""

    judged: float = 3.0  # hope to begin with: as if two drafts of three had stood
    accepted: float = 2.0
    rested: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / self.judged

    def observe(self, accepted: int, drafts: int, fading: float = 0.9) -> None:
        """Take in one pass. What came behind the first rejected draft was never judged."""
        self.judged = fading * self.judged + min(accepted + 1, drafts)
        self.accepted = fading * self.accepted + accepted
