# expect: compares a whole batch with one number
import torch


def generate(model, prompts, max_tokens, eos_id):
    ids = torch.tensor(prompts)
    for _ in range(max_tokens):
        if ids.shape[1] >= model.config.max_position_embeddings:
            break
        next_token = model(ids).logits[:, -1].argmax(dim=-1)
        ids = torch.cat([ids, next_token[:, None]], dim=1)
        if next_token == eos_id:
            break
    return ids.tolist()
