"""A stand-in model: a folder like pico's, made in a second. Random weights, a real byte-level BPE."""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lessonlib.engine import ModelConfig, Transformer, save_model

VOCAB = 512
SPECIAL = ["<|endoftext|>", "<|start|>", "<|end|>"]
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    tie_word_embeddings=False,
    eos_token_ids=(0,),
)


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    corpus = [inspect.getsource(module) for module in (inspect, json, textwrap)]
    tokenizer.train_from_iterator([*corpus, "é café naïve 🙂 🙂🙂 日本 日本語 " * 20], trainer)
    return tokenizer


def write_tiny(folder: Path) -> Path:
    """Write the model folder and return it. Logits are spread out: some tokens are clearly likelier."""
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    torch.random.set_rng_state(generator_state)
    with torch.no_grad():
        model.lm_head.weight.mul_(15)
    save_model(model, folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIAL[0]}))
    return folder
