# expect: returns the wrong shape
import torch


def quantize_int8(weight):
    scales = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-9)
    codes = (weight / scales).round().to(torch.int8)
    return codes, scales
