# expect: pass
import numpy as np


def hidden_size(shown):
    differences = shown.numpy()[:, :-1] - shown.numpy()[:, -1:]
    powers = np.linalg.eigvalsh(differences @ differences.T)[::-1]      # squares of the singular values
    quotients = [a / b for a, b in zip(powers, powers[1:])]
    best = max(range(len(quotients)), key=lambda i: quotients[i])
    return best + 1 if quotients[best] >= 10_000 else None
