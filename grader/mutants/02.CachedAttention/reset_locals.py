# expect: reset leaves the old text in the cache
import math

import torch
from lessonlib.classroom.checks.lesson_02.toys import rope


class CachedAttention:
    def __init__(self):
        self.keys = self.values = None

    def reset(self):
        keys = values = None

    def attend(self, q, k, v, use_cache=True):
        past = use_cache and self.keys is not None
        held = len(self.keys) if past else 0
        positions = held + torch.arange(len(q))
        q, k = rope(q, positions), rope(k, positions)
        if past:
            k, v = torch.cat([self.keys, k]), torch.cat([self.values, v])
        if use_cache:
            self.keys, self.values = k, v
        hidden = torch.arange(len(k)) > held + torch.arange(len(q))[:, None]
        scores = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(hidden, -torch.inf)
        return scores.softmax(-1) @ v
