# expect: takes some blocks before it notices
class BlockAllocator:
    def __init__(self, num_blocks, block_size):
        self.block_size = block_size
        self.holders = [0] * num_blocks
        self.tables = {}

    def available(self):
        return self.holders.count(0)

    def grow(self, name, tokens):
        table = self.tables.setdefault(name, [])
        missing = max(0, -(-tokens // self.block_size) - len(table))
        free = [block for block, count in enumerate(self.holders) if count == 0]
        for i in range(missing):
            if i == len(free):
                raise MemoryError("There are too few free blocks.")
            block = free[i]
            self.holders[block] = 1
            table.append(block)
        return list(table)

    def share(self, new, old, tokens):
        full = tokens // self.block_size
        self.tables[new] = self.tables[old][:full]
        for block in self.tables[new]:
            self.holders[block] += 1
        return list(self.tables[new])

    def release(self, name):
        for block in self.tables.pop(name):
            self.holders[block] -= 1
