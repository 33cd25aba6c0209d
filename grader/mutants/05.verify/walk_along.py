# expect: pass
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([[*text, *drafts]])).logits[0]
    new = []
    for place in range(len(drafts) + 1):
        token = logits[len(text) - 1 + place].argmax().item()
        new.append(token)
        if place == len(drafts) or drafts[place] != token:
            return new
