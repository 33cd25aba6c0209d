"""GGUF: a model as llama.cpp reads it, with its sizes, tokenizer, chat template and weights in one file.

The container and the block formats belong to the `gguf` package. This module decides how *our* models are spelled
in it: which keys, which tensor names, which rows change places. Specification: ggml, docs/gguf.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType as FileType
from torch import Tensor

from lessonlib.engine import ModelConfig, Tokenizer, Transformer, load_config, load_model, load_tokenizer
from lessonlib.engine.checkpoint import read_json, resolve
from lessonlib.engine.errors import BadParameter, TokenizerMismatch
from lessonlib.engine.model import rope_frequencies
from lessonlib.engine.quantize.gguf_blocks import quantize_q4_0, quantize_q8_0

from . import FORMATS, Exported, check_range

TYPES = {
    "f32": (Type.F32, FileType.ALL_F32),
    "f16": (Type.F16, FileType.MOSTLY_F16),
    "bf16": (Type.BF16, FileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, FileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, FileType.MOSTLY_Q4_0),
}
STORED = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
ARCHITECTURES = {  # llama.cpp runs Mistral as a llama
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}

# llama.cpp holds the splitting rule of each tokenizer in its own code and picks it by name. These are the rules, as
# tokenizer.json spells them, for which its splits equal ours.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS: dict[tuple[Any, ...], str] = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", _WORDS + r"\p{N}" + _REST), ("ByteLevel", False)): "qwen2",
    (("Split", _WORDS + r"\p{N}{1,3}" + _REST), ("ByteLevel", False)): "llama-bpe",
}
IGNORES_MERGES = ("llama-bpe",)  # a word that is a token is taken whole


def export_gguf(name: str | Path, output: str | Path, quantization: str | None = None) -> Exported:
    """Write a model, by name or folder, as one GGUF file that llama.cpp runs.

    quantization: the format of the matrices (norms and biases stay f32): "f32", "f16", "bf16", "q8_0" (8.5 bits a
    weight, scales included) or "q4_0" (4.5; embeddings and output layer q8_0). None: as the checkpoint stores them.

    Raises UnknownModel and BrokenCheckpoint; BadParameter for an architecture and TokenizerMismatch for a tokenizer
    that llama.cpp would compute differently.
    """
    folder = resolve(name)
    config = load_config(folder)
    _refuse(config)
    tokenizer = load_tokenizer(folder, config.vocab_size)
    stored = read_json(folder / "config.json")
    stored_dtype = str(stored.get("dtype") or stored.get("torch_dtype"))
    chosen = (quantization or STORED.get(stored_dtype, "f32")).lower()
    if chosen not in TYPES:
        raise BadParameter(
            f"GGUF {quantization!r} is not offered; choose one of {', '.join(FORMATS['gguf'])}."
        )
    model = load_model(folder, stored_dtype if stored_dtype in STORED else None)
    if chosen not in ("f32", "bf16"):  # the scales of blocks are float16, too
        check_range(model.state_dict().values(), torch.float16)

    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")  # a reader never meets half a file
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.family]])
    try:
        _write_sizes(writer, config, folder.name, chosen)
        _write_tokenizer(writer, tokenizer, config)
        weights = {key: (weight, _format(key, weight, TYPES[chosen][0])) for key, weight in _weights(model)}
        for key, (weight, kind) in weights.items():
            shape, numbers = _stored_as(tuple(weight.shape), kind)
            nbytes = int(np.prod(shape)) * numbers.itemsize
            writer.add_tensor_info(key, shape, numbers, nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for weight, kind in weights.values():  # converted one at a time: memory holds the model once
            writer.write_tensor_data(_encode(weight, kind))
        writer.close()
        part.replace(output)
    finally:
        writer.close()
        part.unlink(missing_ok=True)
    return Exported(output, output.stat().st_size, chosen, tuple(_notes(config)))


def _refuse(config: ModelConfig) -> None:
    """Raise BadParameter for what llama.cpp's version of the family does not have (and would read as noise)."""
    lacking = []
    if config.family == "qwen3" and config.output_bias:
        lacking.append("a bias behind its attention")
    if config.family == "qwen2" and config.num_attention_heads * config.head_dim != config.hidden_size:
        lacking.append("heads that are not hidden_size wide together")
    if config.family in ("qwen2", "qwen3") and config.rope_scaling.kind == "llama3":
        lacking.append("Llama 3's RoPE scaling")
    if lacking:
        raise BadParameter(
            f"llama.cpp has no {config.family} model with {' and '.join(lacking)}, so this one cannot be exported to "
            "GGUF; use --to hf."
        )


def _notes(config: ModelConfig) -> Iterator[str]:
    if _context(config) < config.max_position_embeddings:
        yield (
            f"llama.cpp does not slide this model's window, so the file allows only the {_context(config)} tokens "
            "within which that makes no difference."
        )


def _context(config: ModelConfig) -> int:
    """Tokens up to which full attention, the only one llama.cpp has for these families, is what the model does."""
    windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
    return min([config.max_position_embeddings, *(w for w in windows if w is not None)])


def _write_sizes(writer: gguf.GGUFWriter, config: ModelConfig, name: str, quantization: str) -> None:
    writer.add_name(name)
    writer.add_file_type(TYPES[quantization][1])
    if quantization.startswith("q"):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Vocabulary, merges, splitting rule, special tokens and chat template."""
    content = json.loads(tokenizer.to_json())
    added = {token["id"]: token for token in content["added_tokens"]}
    texts = {i: text for text, i in content["model"].get("vocab", {}).items()}
    texts |= {i: token["content"] for i, token in added.items()}
    ids = range(config.vocab_size)  # a model may know more ids than its tokenizer makes
    kind = gguf.TokenType
    writer.add_tokenizer_model("gpt2")  # the name of byte-level BPE, whoever trained it
    writer.add_tokenizer_pre(_pre_tokenizer(content))
    writer.add_token_list([texts.get(i, f"[PAD{i}]") for i in ids])
    writer.add_token_types(
        [
            (kind.CONTROL if added[i]["special"] else kind.USER_DEFINED)
            if i in added
            else (kind.NORMAL if i in texts else kind.UNUSED)
            for i in ids
        ]
    )
    merges = content["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])

    before, after = _wrapping(tokenizer)
    ends = [i for i in (tokenizer.eos_token_id, *config.eos_token_ids) if i is not None]
    first, *others = dict.fromkeys(ends or [0])
    bos = next(iter(before), tokenizer.bos_token_id)
    # Always written: without the key llama.cpp would take GPT-2's own ids.
    writer.add_bos_token_id(next(i for i in (bos, config.bos_token_id, first) if i is not None))
    writer.add_eos_token_id(first)
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    for add, i in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
        add(i)  # a chat turn ends here, and so does the answer
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _wrapping(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that encoding puts before and after a text: at most one each, or TokenizerMismatch."""
    plain, whole = tokenizer.encode("x", add_special_tokens=False), tokenizer.encode("x")
    at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    before, after = whole[:at], whole[at + len(plain) :]
    if len(before) > 1 or after not in ([], [tokenizer.eos_token_id]):
        raise TokenizerMismatch(
            "This tokenizer wraps every text in special tokens of its own, which llama.cpp cannot; use --to hf."
        )
    return before, after


def _pre_tokenizer(content: dict[str, Any]) -> str:
    """llama.cpp's name for the splitting rule in a parsed tokenizer.json, or TokenizerMismatch."""
    model, normalizer = content["model"], content["normalizer"]
    rule = content["pre_tokenizer"] or {}
    steps = tuple(_step(step) for step in rule.get("pretokenizers", [rule]))
    name = PRE_TOKENIZERS.get(steps)
    plain = normalizer is None or normalizer["type"] == "NFC"  # composed text is what everybody types
    merges = bool(model.get("ignore_merges")) == (name in IGNORES_MERGES)
    if model["type"] != "BPE" or name is None or not plain or not merges:
        known = ", ".join(PRE_TOKENIZERS.values())
        raise TokenizerMismatch(
            "llama.cpp would split text differently from this tokenizer; only byte-level BPE with the rules of "
            f"{known} can be exported to GGUF, so use --to hf."
        )
    return name


def _step(step: dict[str, Any]) -> tuple[Any, ...]:
    """One step of a pre-tokenizer as the table above spells it; what the table lacks stays unlike all of it."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": regex}:
            return "ByteLevel", regex
        case {"type": "Digits", "individual_digits": alone}:
            return "Digits", alone
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}:
            return "Split", regex
    return (str(step),)


def _weights(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under llama.cpp's name, in its order of rows."""
    config = model.config
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.family], config.num_hidden_layers)
    scaled = config.rope_scaling.kind == "llama3"
    if scaled:
        plain = 1.0 / config.rope_theta ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        yield "rope_freqs.weight", plain / rope_frequencies(config)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp ties by absence
        if ARCHITECTURES[config.family] is gguf.MODEL_ARCH.LLAMA and ".self_attn." in name:
            if ".q_proj." in name:
                weight = _interleave(weight, config.num_attention_heads)
            elif ".k_proj." in name:
                weight = _interleave(weight, config.num_key_value_heads)
        ours = name if name.startswith("lm_head.") else f"model.{name}"
        theirs = names.get_name(ours, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, ours
        yield theirs, weight.detach().cpu()


def _interleave(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k, head by head, from our RoPE's pairs (i, i + head_dim/2) to llama's (2i, 2i + 1)."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _format(name: str, weight: Tensor, wanted: Type) -> Type:
    """The format one tensor is stored in: vectors stay f32, and rows that do not fill their blocks f16."""
    if weight.dim() == 1:
        return Type.F32
    if wanted is Type.Q4_0 and name in ("token_embd.weight", "output.weight"):
        wanted = Type.Q8_0
    return wanted if weight.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0 else Type.F16


def _encode(weight: Tensor, kind: Type) -> np.ndarray:
    """A tensor's numbers or bytes in the format."""
    match kind:
        case Type.F32:
            return weight.float().numpy()
        case Type.F16:
            return weight.half().numpy()
        case Type.BF16:
            return weight.bfloat16().contiguous().view(torch.uint8).numpy()
        case Type.Q8_0:
            return quantize_q8_0(weight).numpy()
    return quantize_q4_0(weight).numpy()


def _stored_as(shape: tuple[int, ...], kind: Type) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and number type of the array that holds a tensor: blocks, and bf16, are bytes to numpy."""
    if kind in (Type.F32, Type.F16):
        return shape, np.dtype(np.float32 if kind is Type.F32 else np.float16)
    return gguf.quant_shape_to_byte_shape(shape, kind), np.dtype(np.uint8)
