# expect: changes the list while it goes through it
class Engine:
    def __init__(self, model, slots, eos_id):
        self.model, self.slots, self.eos_id = model, slots, eos_id
        self.waiting, self.running = [], []

    def add(self, name, prompt, max_tokens):
        self.waiting.append({"name": name, "todo": list(prompt), "left": max_tokens})

    def step(self):
        while self.waiting and len(self.running) < self.slots:
            request = self.waiting.pop(0)
            request["caches"] = self.model.new_caches(len(request["todo"]) + request["left"])
            self.running.append(request)
        new = {}
        for r in self.running:
            token = int(self.model([(r["todo"], r["caches"])])[0][-1].argmax())
            new[r["name"]] = [token]
            r["todo"] = [token]
            r["left"] -= 1
            if r["left"] == 0 or token == self.eos_id:
                self.running.remove(r)
        return new
