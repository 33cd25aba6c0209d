# expect: changes its input
import torch


def verify(model, text, drafts):
    own = model(torch.tensor([text + drafts])).logits[0, len(text) - 1 :].argmax(-1).tolist()
    for i, draft in enumerate(drafts):
        if draft != own[i]:
            drafts[i:] = [own[i]]
            return drafts
    drafts.append(own[-1])
    return drafts
