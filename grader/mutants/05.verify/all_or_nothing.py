# expect: one wrong draft throws the right ones away
import torch


def verify(model, text, drafts):
    logits = model(torch.tensor([text + drafts])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    return own if drafts == own[:-1] else own[:1]
