# expect: pass
import torch
from lessonlib.classroom.checks.lesson_02.toys import rope


class CachedAttention:
    """Keeps the keys as they came and turns all of them anew in every call."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.past = []

    def attend(self, q, k, v, use_cache=True):
        past = self.past if use_cache else []
        now = past + list(zip(k, v))
        keys = rope(torch.stack([key for key, _ in now]), torch.arange(len(now)))
        values = torch.stack([value for _, value in now])
        queries = rope(q, torch.arange(len(past), len(now)))
        rows = []
        for i, query in enumerate(queries):
            end = len(past) + i + 1
            weights = torch.softmax(keys[:end] @ query / query.numel() ** 0.5, dim=0)
            rows.append(weights @ values[:end])
        if use_cache:
            self.past = now
        return torch.stack(rows)
