# expect: never accepts a draft
import torch


def accept(drafts, q, p, generator=None):
    return [int(torch.multinomial(p[0], 1, generator=generator))]
