# expect: requests share caches
class Engine:
    def __init__(self, model, slots, eos_id):
        self.model, self.slots, self.eos_id = model, slots, eos_id
        self.waiting, self.running = [], []
        self.caches = model.new_caches(500)

    def add(self, name, prompt, max_tokens):
        self.waiting.append({"name": name, "todo": list(prompt), "left": max_tokens})

    def step(self):
        while self.waiting and len(self.running) < self.slots:
            self.running.append(self.waiting.pop(0))
        if not self.running:
            return {}
        new = {}
        outputs = self.model([(r["todo"], self.caches) for r in self.running])
        for r, logits in zip(self.running, outputs):
            token = int(logits[-1].argmax())
            new[r["name"]], r["todo"] = [token], [token]
            r["left"] -= 1
        self.running = [r for r in self.running if r["left"] and r["todo"] != [self.eos_id]]
        return new
