# expect: pass
import torch


def verify(model, text, drafts):
    own = model(torch.tensor(text + drafts)[None]).logits[0, len(text) - 1 :].argmax(-1)
    guesses = torch.tensor(drafts, dtype=torch.int64)
    stands = int((own[:-1] == guesses).cumprod(0).sum())
    return [*drafts[:stands], int(own[stands])]
