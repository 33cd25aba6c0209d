# expect: decides without chance
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for i, draft in enumerate(drafts):
        if p[i, draft] < q[i, draft]:
            return [*new, int(torch.multinomial((p[i] - q[i]).clamp_min(0), 1, generator=generator))]
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
