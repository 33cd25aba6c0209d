# expect: pass
from collections import deque

import torch


class KVCache:
    def __init__(self, size, dim):
        self.keys, self.values, self.length = torch.zeros(size, dim), torch.zeros(size, dim), 0

    def append(self, k, v):
        start, end = self.length, self.length + len(k)
        if end > len(self.keys):
            raise ValueError("full")
        self.keys[start:end], self.values[start:end], self.length = k, v, end
        return self.keys[:end], self.values[:end]

    def rewind(self, length):
        self.length = length


class Engine:
    """Seats whose caches are kept and emptied for the next one."""

    def __init__(self, model, slots, eos_id):
        self.model, self.eos_id = model, eos_id
        self.queue = deque()
        self.seats = [None] * slots
        self.caches = [[KVCache(200, model.dim) for _ in range(model.layers)] for _ in range(slots)]

    def add(self, name, prompt, max_tokens):
        self.queue.append((name, list(prompt), max_tokens))

    def step(self):
        for i, seat in enumerate(self.seats):
            if seat is None and self.queue:
                self.seats[i] = self.queue.popleft()
                for cache in self.caches[i]:
                    cache.rewind(0)
        taken = [i for i, seat in enumerate(self.seats) if seat]
        if not taken:
            return {}
        answers = {}
        for i, logits in zip(taken, self.model([(self.seats[i][1], self.caches[i]) for i in taken])):
            name, _, left = self.seats[i]
            token = logits.argmax(-1).tolist()[-1]
            answers[name] = [token]
            self.seats[i] = None if left == 1 or token == self.eos_id else (name, [token], left - 1)
        self.queue = deque(self.queue)
        return answers
