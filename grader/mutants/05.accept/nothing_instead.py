# expect: nothing comes in the place of a rejected draft
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[i, draft] / q[i, draft]:
            return new
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
