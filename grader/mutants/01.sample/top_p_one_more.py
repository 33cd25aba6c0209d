# expect: top-p keeps one token too many
import torch


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    ranked, order = logits.sort(dim=-1, descending=True)
    probabilities = ranked.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    gone = before >= top_p
    gone[:, 1:] = gone[:, :-1].clone()
    ranked = ranked.masked_fill(gone, float("-inf"))
    place = torch.multinomial(ranked.softmax(dim=-1), 1, generator=generator)
    return order.gather(-1, place).squeeze(-1)
