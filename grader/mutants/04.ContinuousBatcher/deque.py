# expect: pass
from collections import deque

import torch


class ContinuousBatcher:
    def __init__(self, model, size, eos_id):
        self.model = model
        self.eos_id = eos_id
        self.queue = deque()
        self.places = [None] * size

    def add(self, name, prompt, max_tokens):
        self.queue.append([name, list(prompt), max_tokens])

    def batch(self):
        return [place[0] for place in self.places if place is not None]

    def step(self):
        self._fill()
        taken = [i for i, place in enumerate(self.places) if place is not None]
        if not taken:
            return {}
        rows = [self.places[i][1] for i in taken]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        ends = torch.tensor([len(row) - 1 for row in rows])
        best = self.model(ids).logits[torch.arange(len(rows)), ends].argmax(-1)
        answer = {}
        for i, token in zip(taken, best.tolist()):
            name, row, most = self.places[i]
            answer[name] = token
            row.append(token)
            self.places[i][2] = most - 1
            if most == 1 or token == self.eos_id:
                self.places[i] = None
        self._fill()
        return answer

    def _fill(self):
        for i in range(len(self.places)):
            if self.places[i] is None and self.queue:
                self.places[i] = self.queue.popleft()
