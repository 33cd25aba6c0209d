# expect: changes its input
import torch


def hidden_size(shown):
    shown -= shown[:, :1].clone()
    logits = shown[:, 1:]
    values = torch.linalg.svdvals(logits)
    falls = values[:-1] / values[1:]
    if falls.max() < 100:
        return None
    return int(falls.argmax()) + 1
