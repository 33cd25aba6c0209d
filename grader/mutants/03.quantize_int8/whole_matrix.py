# expect: one scale for the whole matrix
import torch


def quantize_int8(weight):
    scales = (weight.abs().max() / 127).clamp(min=1e-9)
    codes = (weight / scales).round().to(torch.int8)
    return codes, scales
