# expect: goes on behind the first wrong draft
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    return own
