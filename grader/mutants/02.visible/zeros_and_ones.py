# expect: returns numbers, not True and False
import torch


def visible(held, new):
    return torch.ones(new, held + new).tril(held)
