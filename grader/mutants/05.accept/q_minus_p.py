# expect: the residual is the wrong way round
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[i, draft] / q[i, draft]:
            return [*new, int(torch.multinomial((q[i] - p[i]).clamp_min(0), 1, generator=generator))]
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
