# expect: divides by zero in a row of zeros
import torch


def quantize_int8(weight):
    scales = weight.abs().amax(dim=1) / 127
    codes = (weight / scales[:, None]).round().to(torch.int8)
    return codes, scales
