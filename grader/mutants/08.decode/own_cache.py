# expect: pass
import torch


class KVCache:
    """Grows by cat; no part of it is the course's."""

    def __init__(self):
        self.k = self.v = None

    @property
    def length(self):
        return 0 if self.k is None else len(self.k)

    def append(self, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k])
        self.v = v if self.v is None else torch.cat([self.v, v])
        return self.k, self.v

    def rewind(self, length):
        self.k, self.v = self.k[:length], self.v[:length]


def decode(model, prompt, max_tokens, eos_id):
    caches = [KVCache() for _ in range(model.layers)]

    def ask(tokens):
        return model([(tokens, caches)])[0].argmax(-1).tolist()[-1]

    answer = [ask(prompt)]
    for _ in range(max_tokens - 1):
        if answer[-1] == eos_id:
            break
        answer.append(ask(answer[-1:]))
    return answer
