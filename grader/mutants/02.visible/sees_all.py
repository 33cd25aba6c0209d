# expect: every token sees the tokens after it
import torch


def visible(held, new):
    return torch.ones(new, held + new).bool()
