# expect: returns the reciprocal of the scale
import torch


def quantize_int8(weight):
    scales = 127 / weight.abs().amax(dim=1).clamp(min=1e-9)
    codes = (weight * scales[:, None]).round().to(torch.int8)
    return codes, scales
