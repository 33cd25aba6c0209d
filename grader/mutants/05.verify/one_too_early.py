# expect: reads the logits one position too early
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    new = []
    for i in range(len(drafts) + 1):
        token = int(logits[len(text) - 2 + i].argmax())
        new.append(token)
        if i == len(drafts) or drafts[i] != token:
            return new
