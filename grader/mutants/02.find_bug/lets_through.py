# expect: lets the cache's own error through
import torch
from lessonlib.classroom.checks.lesson_02.toys import qkv


def find_bug(make):
    text = [3, 1, 4, 1, 5]
    whole = make().attend(*qkv(text))
    cache = make()
    pieces = torch.cat([cache.attend(*qkv(piece)) for piece in (text[:2], text[2:4], text[4:])])
    if pieces.shape != whole.shape:
        return "dimension"
    if not torch.allclose(pieces, whole, atol=1e-4):
        return "offset"
    cache.reset()
    if not torch.allclose(cache.attend(*qkv(text)), whole, atol=1e-4):
        return "stale"
    return "none"
