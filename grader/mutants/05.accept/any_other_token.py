# expect: draws the replacement from p without the draft
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[i, draft] / q[i, draft]:
            weights = p[i].clone()
            weights[draft] = 0
            return [*new, int(torch.multinomial(weights, 1, generator=generator))]
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
