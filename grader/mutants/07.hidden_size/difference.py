# expect: takes the largest difference, not the largest ratio
import torch


def hidden_size(shown):
    logits = shown[:, 1:] - shown[:, :1]
    values = torch.linalg.svdvals(logits)
    falls = values[:-1] - values[1:]
    if len(falls) < 1:
        return None
    return int(falls.argmax()) + 1
