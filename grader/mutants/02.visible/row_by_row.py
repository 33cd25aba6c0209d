# expect: pass
import torch


def visible(held, new):
    table = torch.zeros((new, held + new), dtype=torch.bool)
    for i in range(new):
        for place in range(held + i + 1):
            table[i, place] = True
    return table
