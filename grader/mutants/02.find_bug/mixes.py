# expect: asks about reset before it has asked about positions
import torch
from lessonlib.classroom.checks.lesson_02.toys import qkv


def find_bug(make):
    text = [3, 1, 4, 1, 5]

    def in_pieces(cache):
        return torch.cat([cache.attend(*qkv(piece)) for piece in (text[:2], text[2:4], text[4:])])

    try:
        cache = make()
        cache.attend(*qkv([2, 2]))
        cache.reset()
        again, whole = in_pieces(cache), make().attend(*qkv(text))
        if again.shape != whole.shape:
            return "dimension"
        if not torch.allclose(again, whole, atol=1e-4):
            return "stale"
        if not torch.allclose(in_pieces(make()), whole, atol=1e-4):
            return "offset"
    except RuntimeError:
        return "dimension"
    return "none"
