# expect: changes its input
import torch


def generate(model, prompts, max_tokens, eos_id):
    rows = prompts
    limit = model.config.max_position_embeddings
    finished = [False for _ in rows]
    for step in range(max_tokens):
        for i, row in enumerate(rows):
            if len(row) >= limit:
                finished[i] = True
        if all(finished):
            break
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        logits = model(ids).logits
        for i, row in enumerate(rows):
            if finished[i]:
                continue
            token = int(logits[i, len(row) - 1].argmax())
            row.append(token)
            if token == eos_id:
                finished[i] = True
    return rows
