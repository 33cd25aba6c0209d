# expect: pass
import torch


def quantize_int4(weight, group_size):
    packed, scales = [], []
    for row in weight.tolist():
        data, widths = [], []
        for start in range(0, len(row), group_size):
            group = row[start : start + group_size]
            width = max(map(abs, group)) / 7 or 1.0
            codes = [round(w / width) + 8 for w in group]
            data += [codes[i] + 16 * codes[i + 1] for i in range(0, group_size, 2)]
            widths.append(width)
        packed.append(data)
        scales.append(widths)
    return torch.tensor(packed, dtype=torch.uint8), torch.tensor(scales)
