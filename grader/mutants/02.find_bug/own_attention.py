# expect: pass
import torch
from lessonlib.classroom.checks.lesson_02.toys import qkv, rope


def find_bug(make):
    """Against an attention of its own, without any cache."""
    q, k, v = qkv([5, 2, 9, 4, 4, 1])
    at = torch.arange(6)
    right = torch.nn.functional.scaled_dot_product_attention(rope(q, at)[None], rope(k, at)[None], v[None], is_causal=True)[0]
    cache = make()
    for part in (slice(0, 3), slice(3, 5), slice(5, 6)):
        try:
            got = cache.attend(q[part], k[part], v[part])
        except RuntimeError:
            return "dimension"
        if got.shape != right[part].shape:
            return "dimension"
        if (got - right[part]).norm() > 1e-3:
            return "offset"
    cache.reset()
    again = cache.attend(q, k, v)
    return "none" if again.shape == right.shape and (again - right).norm() < 1e-3 else "stale"
