# expect: changes its input
import torch


def quantize_int8(weight):
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-9)
    weight /= scales[:, None]
    return weight.round().to(torch.int8), scales
