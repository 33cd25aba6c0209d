# expect: reads the logits behind the first token of the prompt
class Engine:
    def __init__(self, model, slots, eos_id):
        self.model, self.slots, self.eos_id = model, slots, eos_id
        self.waiting, self.running = [], []

    def add(self, name, prompt, max_tokens):
        self.waiting.append({"name": name, "todo": list(prompt), "left": max_tokens})

    def admit(self):
        while self.waiting and len(self.running) < self.slots:
            request = self.waiting.pop(0)
            request["caches"] = self.model.new_caches(len(request["todo"]) + request["left"])
            self.running.append(request)

    def step(self):
        self.admit()
        if not self.running:
            return {}
        outputs = self.model([(r["todo"], r["caches"]) for r in self.running])
        new = {}
        for r, logits in zip(self.running, outputs):
            token = int(logits[0].argmax())
            new[r["name"]] = [token]
            r["todo"] = [token]
            r["left"] -= 1
            r["done"] = r["left"] == 0 or token == self.eos_id
        self.running = [r for r in self.running if not r["done"]]
        return new
