# expect: adds a bonus token after a rejection
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[i, draft] / q[i, draft]:
            new.append(int(torch.multinomial((p[i] - q[i]).clamp_min(0), 1, generator=generator)))
            break
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
