# expect: deals the maxima out in turn
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    numbers = levels[codes]
    return numbers * absmax.repeat(block_size)
