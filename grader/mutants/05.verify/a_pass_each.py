# expect: runs the model more than once
import torch


def verify(model, text, drafts):
    new = []
    for draft in [*drafts, None]:
        token = int(model(torch.tensor([text + new])).logits[0, -1].argmax())
        new.append(token)
        if draft != token:
            break
    return new
