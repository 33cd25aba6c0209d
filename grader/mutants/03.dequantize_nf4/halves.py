# expect: all high codes first, then all low ones
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    codes = torch.cat([packed >> 4, packed & 15]).long()
    numbers = levels[codes]
    return (numbers.view(-1, block_size) * absmax[:, None]).flatten()
