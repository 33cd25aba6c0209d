# expect: feeds only the newest token
import torch


def generate(model, prompts, max_tokens, eos_id):
    rows = []
    for prompt in prompts:
        row = list(prompt)
        ids = torch.tensor([row])
        for _ in range(max_tokens):
            if len(row) >= model.config.max_position_embeddings:
                break
            row.append(int(model(ids).logits[0, -1].argmax()))
            ids = torch.tensor([row[-1:]])
            if row[-1] == eos_id:
                break
        rows.append(row)
    return rows
