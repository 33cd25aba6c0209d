# expect: reads the logits of the padding
import torch


def generate(model, prompts, max_tokens, eos_id):
    width = max(len(p) for p in prompts)
    ids = torch.tensor([p + [0] * (width - len(p)) for p in prompts])
    answers = [list(p) for p in prompts]
    done = [False] * len(prompts)
    for _ in range(max_tokens):
        chosen = model(ids).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        for i, token in enumerate(chosen.tolist()):
            if not done[i] and len(answers[i]) < model.config.max_position_embeddings:
                answers[i].append(token)
                done[i] = token == eos_id
        if all(d or len(a) >= model.config.max_position_embeddings for d, a in zip(done, answers)):
            break
    return answers
