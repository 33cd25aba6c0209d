# expect: counts rounding noise as well
import torch


def hidden_size(shown):
    logits = shown[:, 1:] - shown[:, :1]
    return int(torch.linalg.matrix_rank(logits))
