# expect: one full row stops the whole batch
import torch


def generate(model, prompts, max_tokens, eos_id):
    rows = [list(prompt) for prompt in prompts]
    limit = model.config.max_position_embeddings
    finished = [False for _ in rows]
    for step in range(max_tokens):
        if all(finished) or max(len(row) for row in rows) >= limit:
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
