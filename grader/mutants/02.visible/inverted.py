# expect: True and False are swapped
import torch


def visible(held, new):
    places = torch.arange(held + new)
    own = held + torch.arange(new)[:, None]
    return places > own
