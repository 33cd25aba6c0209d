# expect: pass
def kv_bytes(config, tokens, bits=16):
    queries = config["num_attention_heads"]
    group = queries // config.get("num_key_value_heads", queries)
    width = config.get("head_dim") or config["hidden_size"] // queries
    per_token = config["num_hidden_layers"] * (queries // group) * width * bits // 4
    return per_token * tokens
