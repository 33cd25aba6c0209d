# expect: one token too few
import torch


class ContinuousBatcher:
    def __init__(self, model, size, eos_id):
        self.model, self.size, self.eos_id = model, size, eos_id
        self.waiting, self.running = [], []

    def add(self, name, prompt, max_tokens):
        self.waiting.append({"name": name, "ids": list(prompt), "left": max_tokens})

    def batch(self):
        return [request["name"] for request in self.running]

    def admit(self):
        while self.waiting and len(self.running) < self.size:
            self.running.append(self.waiting.pop(0))

    def step(self):
        self.admit()
        if not self.running:
            return {}
        longest = max(len(request["ids"]) for request in self.running)
        padded = torch.tensor([r["ids"] + [0] * (longest - len(r["ids"])) for r in self.running])
        logits = self.model(padded).logits
        tokens = {}
        for row, request in enumerate(self.running):
            token = int(logits[row, len(request["ids"]) - 1].argmax())
            request["ids"].append(token)
            request["left"] -= 1
            tokens[request["name"]] = token
        self.running = [r for r in self.running if r["left"] > 1 and r["ids"][-1] != self.eos_id]
        self.admit()
        return tokens
