# expect: every token sees one token too many
import torch


def visible(held, new):
    places = torch.arange(held + new)
    own = held + 1 + torch.arange(new)[:, None]
    return places <= own
