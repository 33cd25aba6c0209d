# expect: reads the logits of the first position
import torch


def generate(model, prompts, max_tokens, eos_id):
    rows = []
    for prompt in prompts:
        row = list(prompt)
        for _ in range(max_tokens):
            if len(row) >= model.config.max_position_embeddings:
                break
            row.append(int(model(torch.tensor([row])).logits[0, 0].argmax()))
            if row[-1] == eos_id:
                break
        rows.append(row)
    return rows
