# expect: counts rounding noise as well
import torch


def hidden_size(shown):
    logits = shown[:, 1:] - shown[:, :1]
    values = torch.linalg.svdvals(logits)
    return int((values > 1e-9).sum())
