"""The engine: from token ids to token ids, one module per idea of the course.

Read in this order: errors, config, prompts, kv_cache, model, checkpoint, tokenizer, sampling, generate, costs, blocks,
paged_cache, scheduler, batching, simulator, acceptance, speculative, quantize, perplexity, llm; then compiled and cuda,
which are optional and not needed to understand the course.
"""

from . import costs
from .batching import ContinuousBatcher, StaticBatcher
from .blocks import BlockPool
from .checkpoint import load_config, load_model, resolve, save_model, shipped_models
from .config import ModelConfig, RopeScaling
from .errors import EngineError
from .generate import generate
from .kv_cache import DenseCache, NoCache
from .llm import LLM, RequestOutput
from .model import Transformer
from .paged_cache import PagedCache, Span
from .perplexity import Perplexity, perplexity
from .quantize import quantize_model
from .sampling import SamplingParams
from .scheduler import Request, Scheduler
from .tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "LLM", "BlockPool", "ContinuousBatcher", "DenseCache", "EngineError", "ModelConfig", "NoCache",
    "PagedCache", "Perplexity", "Request", "RequestOutput", "RopeScaling", "SamplingParams", "Scheduler",
    "Span", "StaticBatcher", "Tokenizer", "Transformer", "costs", "generate", "load_config", "load_model",
    "load_tokenizer", "perplexity", "quantize_model", "resolve", "save_model", "shipped_models",
]  # fmt: skip
