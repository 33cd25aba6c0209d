# expect: pass
import torch


def accept(drafts, q, p, generator=None):
    k = len(drafts)
    places = torch.arange(k)
    tokens = torch.tensor(drafts, dtype=torch.int64)
    ratio = p[places, tokens] / q[places, tokens]
    stands = int((torch.rand(k, generator=generator) < ratio).int().cumprod(0).sum())
    weights = p[k] if stands == k else torch.relu(p[stands] - q[stands])
    last = torch.multinomial(weights / weights.sum(), 1, generator=generator).item()
    return [*drafts[:stands], last]
