# expect: row 0 decides what all rows keep
import torch


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    if top_p < 1:
        order = probabilities[0].argsort(descending=True)
        ranked = probabilities[:, order]
        before = ranked.cumsum(dim=-1) - ranked
        ranked = ranked.masked_fill(before >= top_p, 0)
        probabilities = torch.zeros_like(ranked).index_copy(-1, order, ranked)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
