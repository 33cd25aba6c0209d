# expect: ignores the generator
import random


def accept(drafts, q, p, generator=None):
    vocab = range(p.shape[-1])
    for i, draft in enumerate(drafts):
        if random.random() >= p[i, draft] / q[i, draft]:
            return drafts[:i] + random.choices(vocab, (p[i] - q[i]).clamp_min(0).tolist())
    return drafts + random.choices(vocab, p[-1].tolist())
