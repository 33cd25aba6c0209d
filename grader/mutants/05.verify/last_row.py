# expect: takes its own token from the last position every time
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    return [*drafts[:stands], own[-1]]
