# expect: computes with the code instead of looking it up
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    numbers = (codes - 8) / 7
    return (numbers.view(-1, block_size) * absmax[:, None]).flatten()
