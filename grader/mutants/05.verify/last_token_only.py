# expect: runs the last token without the text before it
import torch


def verify(model, text, drafts):
    own = model(torch.tensor([text[-1:] + drafts])).logits[0].argmax(-1).tolist()
    new = []
    for draft, token in zip([*drafts, None], own, strict=False):
        new.append(token)
        if draft != token:
            break
    return new
