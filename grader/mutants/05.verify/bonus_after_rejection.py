# expect: adds a bonus token after a rejection
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    new = []
    for draft, token in zip(drafts, own, strict=False):
        new.append(token)
        if draft != token:
            break
    new.append(own[-1])
    return new
