# expect: the held tokens are hidden
import torch


def visible(held, new):
    table = torch.zeros(new, held + new).bool()
    table[:, held:] = torch.ones(new, new).tril().bool()
    return table
