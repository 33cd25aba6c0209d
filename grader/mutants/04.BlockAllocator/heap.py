# expect: pass
import heapq
from collections import Counter
from math import ceil


class BlockAllocator:
    def __init__(self, num_blocks, block_size):
        self.size = block_size
        self.heap = list(range(num_blocks))
        self.count = Counter()
        self.table = {}

    def available(self):
        return len(self.heap)

    def grow(self, name, tokens):
        mine = self.table.get(name, [])
        need = ceil(tokens / self.size) - len(mine)
        if need > len(self.heap):
            raise MemoryError(f"{need} blocks are needed and {len(self.heap)} are free.")
        taken = [heapq.heappop(self.heap) for _ in range(need)]
        self.count.update(taken)
        self.table[name] = mine + taken
        return self.table[name]

    def share(self, new, old, tokens):
        common = tuple(self.table[old])[: tokens // self.size]
        self.count.update(common)
        self.table[new] = list(common)
        return self.table[new]

    def release(self, name):
        self.count.subtract(self.table[name])
        for block in self.table[name]:
            if not self.count[block]:
                heapq.heappush(self.heap, block)
        del self.table[name]
