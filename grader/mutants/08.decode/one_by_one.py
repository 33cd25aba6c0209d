# expect: runs the prompt token by token
def decode(model, prompt, max_tokens, eos_id):
    caches = model.new_caches(len(prompt) + max_tokens)
    todo, new = list(prompt), []
    while True:
        for one in todo:
            logits = model([([one], caches)])[0]
        token = int(logits[-1].argmax())
        new.append(token)
        if token == eos_id or len(new) == max_tokens:
            return new
        todo = [token]
