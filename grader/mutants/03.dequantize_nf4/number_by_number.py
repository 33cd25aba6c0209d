# expect: pass
import torch


def dequantize_nf4(packed, absmax, levels, block_size):
    numbers = []
    for byte in packed.tolist():
        for code in divmod(byte, 16):
            numbers.append(levels[code] * absmax[len(numbers) // block_size])
    return torch.tensor(numbers)
