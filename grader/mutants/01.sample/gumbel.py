# expect: pass
import torch


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    """Draws with the Gumbel trick: adding noise to the logits and taking the largest."""
    if temperature == 0:
        return logits.max(dim=-1).indices
    ranked, ids = (logits / temperature).sort(dim=-1, descending=True)
    places = torch.arange(ranked.shape[-1]).expand_as(ranked)
    if top_k:
        ranked = ranked.where(places < top_k, -torch.inf)
    p = ranked.softmax(-1)
    ranked = ranked.where(p.cumsum(-1) - p < top_p, -torch.inf)
    noise = -torch.log(-torch.log(torch.rand(ranked.shape, generator=generator)))
    place = (ranked + noise).argmax(-1, keepdim=True)
    return ids.gather(-1, place)[:, 0]
