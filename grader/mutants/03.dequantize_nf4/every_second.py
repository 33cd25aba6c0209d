# expect: pass
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    numbers = torch.empty(2 * len(packed))
    numbers[::2] = levels.gather(0, (packed // 16).long())
    numbers[1::2] = levels.gather(0, (packed % 16).long())
    return numbers * absmax[torch.arange(len(numbers)) // block_size]
