# expect: accepts every draft
import torch


def accept(drafts, q, p, generator=None):
    return [*drafts, int(torch.multinomial(p[-1], 1, generator=generator))]
