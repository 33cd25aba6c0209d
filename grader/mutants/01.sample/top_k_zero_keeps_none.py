# expect: top_k=0 removes every token
import torch


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    best = logits.argsort(dim=-1, descending=True)[:, :top_k]
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, best, True)
    logits = logits.masked_fill(~kept, float("-inf"))
    ranked, order = logits.sort(dim=-1, descending=True)
    probabilities = ranked.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    ranked = ranked.masked_fill(before >= top_p, float("-inf"))
    place = torch.multinomial(ranked.softmax(dim=-1), 1, generator=generator)
    return order.gather(-1, place).squeeze(-1)
