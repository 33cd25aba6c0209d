# expect: pass
import torch


def quantize_int8(weight):
    codes, scales = [], []
    for row in weight:
        largest = max(abs(w) for w in row.tolist())
        scale = largest / 127 if largest else 1.0
        codes.append(torch.tensor([round(w / scale) for w in row.tolist()], dtype=torch.int8))
        scales.append(scale)
    return torch.stack(codes), torch.tensor(scales)
