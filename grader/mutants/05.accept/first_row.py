# expect: judges every draft by the first row
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for _i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[0, draft] / q[0, draft]:
            return [*new, int(torch.multinomial((p[0] - q[0]).clamp_min(0), 1, generator=generator))]
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
