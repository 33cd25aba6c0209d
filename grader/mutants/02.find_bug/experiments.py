# expect: pass
import torch
from lessonlib.classroom.checks.lesson_02.toys import qkv


def answer(cache, pieces):
    parts = [cache.attend(*qkv(piece)) for piece in pieces]
    if any(part.shape != (len(piece), 4) for part, piece in zip(parts, pieces)):
        raise RuntimeError("another shape")
    return torch.cat(parts)


def find_bug(make):
    try:
        one_by_one = answer(make(), [[2], [7], [1], [8]])
        mixed = answer(make(), [[2, 7], [1], [8]])
        whole = answer(make(), [[2, 7, 1, 8]])
    except Exception:
        return "dimension"
    if max((mixed - whole).abs().max(), (one_by_one - whole).abs().max()) > 1e-3:
        return "offset"
    used = make()
    answer(used, [[6, 6, 6]])
    used.reset()
    difference = answer(used, [[2, 7, 1, 8]]) - whole
    return "stale" if difference.abs().max() > 1e-3 else "none"
