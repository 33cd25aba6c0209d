# expect: tries everything in one go
import torch
from lessonlib.classroom.checks.lesson_02.toys import qkv


def find_bug(make):
    text = [3, 1, 4]
    cache = make()
    first = cache.attend(*qkv(text))
    if first.shape != (3, 4):
        return "dimension"
    cache.reset()
    try:
        again = cache.attend(*qkv(text))
    except RuntimeError:
        return "dimension"
    return "none" if again.shape == first.shape and torch.allclose(again, first) else "stale"
