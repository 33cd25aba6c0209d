# expect: changes its input
def decode(model, prompt, max_tokens, eos_id):
    caches = model.new_caches(len(prompt) + max_tokens)
    start, todo = len(prompt), list(prompt)
    while len(prompt) < start + max_tokens:
        token = int(model([(todo, caches)])[0][-1].argmax())
        prompt.append(token)
        if token == eos_id:
            break
        todo = [token]
    return prompt[start:]
