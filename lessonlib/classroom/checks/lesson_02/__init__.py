"""Lesson 02, the KV cache: what may be seen, attention with a memory, its slots, its bugs, its bytes."""

from .cached_attention import CACHED_ATTENTION
from .find_bug import FIND_BUG
from .kv_bytes import KV_BYTES
from .slots import KV_CACHE
from .visible import VISIBLE

EXERCISES = (VISIBLE, CACHED_ATTENTION, FIND_BUG, KV_CACHE, KV_BYTES)
