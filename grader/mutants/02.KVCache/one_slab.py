# expect: pass
import torch


class KVCache:
    def __init__(self, size, dim):
        self.size, self.used = size, 0
        self.memory = torch.empty(2, size, dim)

    def append(self, k, v):
        room = self.size - self.used
        if k.shape[0] > room:
            raise ValueError(f"There is room for {room} tokens, not for {k.shape[0]}.")
        for token in range(k.shape[0]):
            self.memory[0, self.used] = k[token]
            self.memory[1, self.used] = v[token]
            self.used += 1
        return self.memory[0].narrow(0, 0, self.used), self.memory[1].narrow(0, 0, self.used)

    def rewind(self, length):
        if not 0 <= length <= self.used:
            raise ValueError("One can only go back.")
        self.used = length

    def reset(self):
        self.used = 0
        self.memory.zero_()
