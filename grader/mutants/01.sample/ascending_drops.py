# expect: sorted from the smallest up
import torch


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    ranked, order = probabilities.sort(dim=-1)
    gone = ranked.cumsum(dim=-1) > top_p
    gone[:, 0] = False
    if top_p < 1:
        probabilities = probabilities.masked_fill(gone.scatter(-1, order, gone), 0)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
