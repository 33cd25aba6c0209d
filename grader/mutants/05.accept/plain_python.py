# expect: pass
import torch


def pick(weights, generator):
    """Walk along the running sum."""
    u = torch.rand(1, generator=generator).item() * sum(weights)
    for token, weight in enumerate(weights):
        u -= weight
        if u < 0:
            return token
    return max(range(len(weights)), key=weights.__getitem__)


def accept(drafts, q, p, generator=None):
    q, p, new = q.tolist(), p.tolist(), []
    for i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator).item() * q[i][draft] >= p[i][draft]:
            missing = [max(0.0, wanted - offered) for wanted, offered in zip(p[i], q[i], strict=True)]
            return [*new, pick(missing, generator)]
        new.append(draft)
    return [*new, pick(p[-1], generator)]
