# expect: pass
import torch


def hidden_size(shown):
    rows = shown.clone()
    s = torch.linalg.svdvals(rows - rows.mean(dim=1, keepdim=True)).tolist()
    for n, (large, small) in enumerate(zip(s, s[1:]), start=1):
        if large >= 100 * small:
            return n
    return None
