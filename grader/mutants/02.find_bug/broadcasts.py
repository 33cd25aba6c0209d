# expect: compares tables of different shapes
import torch
from lessonlib.classroom.checks.lesson_02.toys import qkv


def find_bug(make):
    text = [3, 1, 4, 1]
    whole, cache = make().attend(*qkv(text)), make()
    try:
        for part in (slice(0, 2), slice(2, 4)):
            if not torch.allclose(cache.attend(*qkv(text[part])), whole[part], atol=1e-4):
                return "offset"
        cache.reset()
        return "none" if torch.allclose(cache.attend(*qkv(text)), whole, atol=1e-4) else "stale"
    except RuntimeError:
        return "dimension"
