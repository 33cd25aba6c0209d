# expect: pass
import torch


def generate(model, prompts, max_tokens, eos_id):
    limit = model.config.max_position_embeddings
    answers = []
    for prompt in prompts:
        text = prompt[:]
        while len(text) < limit and len(text) - len(prompt) < max_tokens:
            logits = model(torch.tensor([text])).logits
            text.append(logits[0, -1].argmax().item())
            if text[-1] == eos_id:
                break
        answers.append(text)
    return answers
