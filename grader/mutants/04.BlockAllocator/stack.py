# expect: takes another free block than the lowest
class BlockAllocator:
    def __init__(self, num_blocks, block_size):
        self.block_size = block_size
        self.free = list(range(num_blocks))
        self.count = [0] * num_blocks
        self.tables = {}

    def available(self):
        return len(self.free)

    def grow(self, name, tokens):
        table = self.tables.setdefault(name, [])
        missing = -(-tokens // self.block_size) - len(table)
        if missing > len(self.free):
            raise MemoryError("too few")
        for _ in range(missing):
            block = self.free.pop(0)
            self.count[block] = 1
            table.append(block)
        return list(table)

    def share(self, new, old, tokens):
        self.tables[new] = self.tables[old][: tokens // self.block_size]
        for block in self.tables[new]:
            self.count[block] += 1
        return list(self.tables[new])

    def release(self, name):
        for block in self.tables.pop(name):
            self.count[block] -= 1
            if self.count[block] == 0:
                self.free.append(block)
