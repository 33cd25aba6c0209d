# expect: pass
import torch


def quantize_int4(weight, group_size):
    rows, columns = weight.shape
    largest = weight.abs().reshape(rows, columns // group_size, group_size).max(dim=2).values
    scales = torch.where(largest > 0, largest / 7, torch.ones_like(largest))
    codes = torch.round(weight / scales.repeat_interleave(group_size, dim=1)).clamp(-8, 7).long() + 8
    pairs = codes.reshape(rows, -1, 2)
    return (pairs[..., 0] + 16 * pairs[..., 1]).byte(), scales
