# expect: pass
import torch


def generate(model, prompts, max_tokens, eos_id):
    """A rectangle with room for everything, a length for each row, and a mask of rows that are still growing."""
    context = model.config.max_position_embeddings
    lengths = torch.tensor([len(p) for p in prompts])
    ends = torch.clamp(lengths + max_tokens, max=context)
    text = torch.full((len(prompts), int(ends.max())), eos_id)
    for i, p in enumerate(prompts):
        text[i, : len(p)] = torch.tensor(p)
    growing = lengths < ends
    while growing.any():
        logits = model(text[:, : int(lengths.max())]).logits
        rows = torch.arange(len(prompts))
        chosen = logits[rows, lengths - 1].argmax(-1)
        text[rows[growing], lengths[growing]] = chosen[growing]
        lengths = lengths + growing.long()
        growing = growing & (chosen != eos_id) & (lengths < ends)
    return [text[i, : lengths[i]].tolist() for i in range(len(prompts))]
