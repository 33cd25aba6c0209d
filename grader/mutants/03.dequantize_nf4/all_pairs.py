# expect: pass
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    pairs = torch.cartesian_prod(levels, levels)  # what each of the 256 bytes stands for
    return pairs[packed.int()].flatten() * absmax.repeat_interleave(block_size)
