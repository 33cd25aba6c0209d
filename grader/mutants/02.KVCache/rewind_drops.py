# expect: rewind drops that many tokens instead of keeping them
import torch


class KVCache:
    def __init__(self, size, dim):
        self.keys = torch.zeros(size, dim)
        self.values = torch.zeros(size, dim)
        self.length = 0

    def append(self, k, v):
        start, end = self.length, self.length + len(k)
        if end > len(self.keys):
            raise ValueError("The cache is full.")
        self.keys[start:end] = k
        self.values[start:end] = v
        self.length = end
        return self.keys[:end], self.values[:end]

    def rewind(self, length):
        if length > self.length:
            raise ValueError("There are not so many tokens.")
        self.length -= length

    def reset(self):
        self.length = 0
