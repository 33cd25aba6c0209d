# expect: changes the list while it goes through it
import torch


class ContinuousBatcher:
    def __init__(self, model, size, eos_id):
        self.model, self.size, self.eos_id = model, size, eos_id
        self.waiting, self.running = [], []

    def add(self, name, prompt, max_tokens):
        self.waiting.append({"name": name, "ids": list(prompt), "left": max_tokens})

    def batch(self):
        return [request["name"] for request in self.running]

    def fill(self):
        while self.waiting and len(self.running) < self.size:
            self.running.append(self.waiting.pop(0))

    def step(self):
        self.fill()
        if not self.running:
            return {}
        longest = max(len(r["ids"]) for r in self.running)
        logits = self.model(torch.tensor([r["ids"] + [0] * (longest - len(r["ids"])) for r in self.running])).logits
        rows = {r["name"]: row for r, row in zip(self.running, logits)}
        tokens = {}
        for request in self.running:
            token = int(rows[request["name"]][len(request["ids"]) - 1].argmax())
            request["ids"].append(token)
            tokens[request["name"]] = token
            request["left"] -= 1
            if token == self.eos_id or not request["left"]:
                self.running.remove(request)
        self.fill()
        return tokens
