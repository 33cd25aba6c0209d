# expect: pass
import torch
import torch.nn.functional as F
from lessonlib.classroom.checks.lesson_02.toys import rope


class CachedAttention:
    def __init__(self):
        self.slab = None
        self.length = 0

    def reset(self):
        self.length = 0

    def attend(self, q, k, v, use_cache=True):
        if not use_cache:
            return CachedAttention().attend(q, k, v)
        if self.slab is None:
            self.slab = torch.zeros(2, 256, q.shape[1])
        start, end = self.length, self.length + q.shape[0]
        where = torch.arange(start, end)
        self.slab[0, start:end] = rope(k, where)
        self.slab[1, start:end] = v
        self.length = end
        mask = torch.ones(end - start, end).tril(start).bool()
        return F.scaled_dot_product_attention(rope(q, where), self.slab[0, :end], self.slab[1, :end], attn_mask=mask)
