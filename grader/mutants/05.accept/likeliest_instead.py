# expect: takes the likeliest token where it should draw
import torch


def accept(drafts, q, p, generator=None):
    new = []
    for i, draft in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[i, draft] / q[i, draft]:
            return [*new, int((p[i] - q[i]).argmax())]
        new.append(draft)
    return [*new, int(torch.multinomial(p[-1], 1, generator=generator))]
