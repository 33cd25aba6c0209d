# expect: finds a cliff where there is none
import torch


def hidden_size(shown):
    logits = shown[:, 1:] - shown[:, :1]
    values = torch.linalg.svdvals(logits)
    falls = values[:-1] / values[1:]
    return int(falls.argmax()) + 1
