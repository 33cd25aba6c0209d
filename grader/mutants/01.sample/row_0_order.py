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
    order = probabilities[0].argsort(descending=True)
    gathered = 0
    for i in order.tolist():
        share = float(probabilities[0, i])
        if gathered >= top_p:
            probabilities[:, i] = 0
        gathered += share
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
