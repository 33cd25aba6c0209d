# expect: takes the whole byte for a code
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    codes = torch.stack([packed >> 4, packed], dim=1).flatten().long()
    numbers = levels[codes]
    return (numbers.view(-1, block_size) * absmax[:, None]).flatten()
