# expect: reads the logits one position too late
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    new = []
    for i, draft in enumerate(drafts):
        token = int(logits[len(text) + i].argmax())
        new.append(token)
        if draft != token:
            return new
    new.append(int(logits[-1].argmax()))
    return new
