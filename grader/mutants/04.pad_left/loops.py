# expect: pass
import torch


def pad_left(prompts, pad_id):
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    positions = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros(len(prompts), width, width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        first = width - len(prompt)
        for i in range(width):
            if i >= first:
                ids[row, i] = prompt[i - first]
                positions[row, i] = i - first
                for j in range(first, i + 1):
                    mask[row, i, j] = True
            else:
                mask[row, i, i] = True
    return ids, positions, mask
