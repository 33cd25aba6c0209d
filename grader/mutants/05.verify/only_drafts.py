# expect: leaves out the model's own token
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    accepted = 0
    for draft, token in zip(drafts, own, strict=False):
        if draft != token:
            break
        accepted += 1
    return drafts[:accepted]
