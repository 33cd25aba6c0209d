# expect: the staircase starts at the left edge
import torch


def visible(held, new):
    places = torch.arange(held + new)
    own = torch.arange(new)[:, None]
    return places <= own
