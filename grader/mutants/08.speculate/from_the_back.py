# expect: pass
from itertools import takewhile


def speculate(model, caches, text, drafts):
    before = caches[0].length
    (logits,) = model([(text[-1:] + drafts, caches)])
    likeliest = [int(row.argmax()) for row in logits]
    good = [draft for draft, _ in takewhile(lambda pair: pair[0] == pair[1], zip(drafts, likeliest))]
    for cache in reversed(caches):
        cache.rewind(before + 1 + len(good))
    return good + [likeliest[len(good)]]
