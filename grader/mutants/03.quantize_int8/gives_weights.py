# expect: returns the wrong type
import torch


def quantize_int8(weight):
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-9)
    codes = (weight / scales[:, None]).round().to(torch.int8)
    return codes * scales[:, None]
