# expect: returns nothing where there are no drafts
import torch


def verify(model, text, drafts):
    own = model(torch.tensor([text + drafts])).logits[0, len(text) - 1 :].argmax(-1).tolist()
    new = []
    for i, (draft, token) in enumerate(zip(drafts, own, strict=False)):
        new.append(token)
        if draft != token:
            return new
        if i == len(drafts) - 1:
            new.append(own[-1])
    return new
