# expect: keeps the rejected draft
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    new = []
    for draft, token in zip(drafts, own, strict=False):
        new.append(draft)
        if draft != token:
            return [*new, token]
    return [*new, own[-1]]
