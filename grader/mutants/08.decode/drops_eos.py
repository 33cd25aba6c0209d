# expect: leaves out the end token
def decode(model, prompt, max_tokens, eos_id):
    caches = model.new_caches(len(prompt) + max_tokens)
    todo, new = list(prompt), []
    while True:
        logits = model([(todo, caches)])[0]
        token = int(logits[-1].argmax())
        if token == eos_id:
            return new
        new.append(token)
        if token == eos_id or len(new) == max_tokens:
            return new
        todo = [token]
