# expect: returns nothing
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    numbers = levels[codes]
    (numbers.view(-1, block_size) * absmax[:, None]).flatten()
