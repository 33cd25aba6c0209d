# expect: the staircase starts at the left edge
import torch


def visible(held, new):
    return torch.tril(torch.ones(new, held + new)).bool()
