# expect: pass
import torch


def pick(row, temperature, top_k, top_p, generator):
    """One row in plain Python: sort, cut, and walk along the running sum."""
    if temperature == 0:
        return max(range(len(row)), key=lambda i: (row[i], -i))
    weights = {i: torch.tensor(x / temperature).exp().item() for i, x in enumerate(row)}
    ranked = sorted(weights, key=weights.get, reverse=True)
    if top_k:
        ranked = ranked[:top_k]
    total = sum(weights[i] for i in ranked)
    kept, gathered = [], 0.0
    for i in ranked:
        kept.append(i)
        gathered += weights[i] / total
        if gathered >= top_p:
            break
    u = torch.rand(1, generator=generator).item() * sum(weights[i] for i in kept)
    for i in kept:
        u -= weights[i]
        if u <= 0:
            return i
    return kept[-1]


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    return torch.tensor([pick(row, temperature, top_k, top_p, generator) for row in logits.tolist()])
