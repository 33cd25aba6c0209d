# expect: returns the wrong type
import torch


def verify(model, text, drafts):
    own = model(torch.tensor([text + drafts])).logits[0, len(text) - 1 :].argmax(-1)
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    return own[: stands + 1]
