# expect: needs prompts of equal length
import torch


def generate(model, prompts, max_tokens, eos_id):
    ids = torch.tensor(prompts)
    rows = [list(p) for p in prompts]
    done = torch.zeros(len(rows), dtype=torch.bool)
    for _ in range(max_tokens):
        if done.all() or ids.shape[1] >= model.config.max_position_embeddings:
            break
        chosen = model(ids).logits[:, -1].argmax(-1)
        for i in range(len(rows)):
            if not done[i]:
                rows[i].append(int(chosen[i]))
        done |= chosen == eos_id
        ids = torch.cat([ids, chosen[:, None]], dim=1)
    return rows
