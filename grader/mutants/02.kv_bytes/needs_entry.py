# expect: needs an entry that the file may lack
def kv_bytes(config, tokens, bits=16):
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * tokens * bits // 8
