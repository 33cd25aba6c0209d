# %% [markdown]
# # 02 · The KV cache
#
# **An evening:** 30 to 45 minutes to read, run and play, then the exercises. (Core track, the sections marked ●
# without their exercises: 6 minutes.)
#
# Lesson 01 ended with two kinds of bars: the loop that runs the whole text again at every step, and the loop that runs each
# token once. Both write the same text. In this lesson you find out what has to be kept so that nothing is done twice, build
# the thing that keeps it, break it in four ways that are all over the web, and work out what it costs: memory.

# %%
import math

import torch
import torch.nn.functional as F
from lessonlib import explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.classroom.checks.lesson_02.toy_caches import toy_cache
from lessonlib.classroom.checks.lesson_02.toys import kv, qkv, rope
from lessonlib.engine import (
    DenseCache,
    ModelConfig,
    SamplingParams,
    Transformer,
    costs,
    generate,
    load_model,
    load_tokenizer,
)
from lessonlib.engine.kv_cache import visible as engine_visible

tokenizer = load_tokenizer("pico")
model = load_model("pico")
config = model.config
print(f"pico: {config.num_parameters:,} parameters in {config.num_hidden_layers} layers")

# %% [markdown]
# ## ● What does a token need from those before it?
#
# **Question: the text has grown by one token. What of the old work is needed again?**
#
# A model is a stack of **layers** (pico has 12). In almost all of a layer each token is worked on alone. Only in one place do
# tokens meet: in **attention**. There each token is turned into three short lists of numbers (*vectors*):
#
# | | its job |
# |---|---|
# | **query** | says what this token is looking for |
# | **key** | says what this token can be found by |
# | **value** | is what it hands over when it is found |
#
# A token that looks compares its query with the keys (multiply number by number, add up: one *score* for each key), turns
# the scores into weights that sum to 1 (softmax, as in lesson 01), and takes the values in these proportions. That is all,
# and it fits in three lines. (Dividing by the root of the vectors' length keeps the scores moderate.)

# %%
query = torch.tensor([1.0, 0.0])  # of the newest token, the one that looks
keys = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])  # of the three tokens so far, itself included
values = torch.tensor([[10.0], [20.0], [30.0]])

scores = keys @ query / math.sqrt(len(query))
weights = scores.softmax(-1)
result = weights @ values

print("weights:", [round(w, 2) for w in weights.tolist()])
print("result: ", round(result.item(), 2))

# %% [markdown]
# Now append a token. It brings a query of its own, and it needs the **keys and values of all tokens before it**. It does not
# need their queries: they have looked already.
#
# And do the old keys and values change when the text goes on? A token only looks *back* (this is called **causal**), so
# whatever comes later cannot reach it. That is a claim about pico which you can check: run a short text, run a longer one
# that begins with it, and compare the keys of the tokens they share. `DenseCache` is the engine's own keeper of keys and
# values.

# %%
short = tokenizer.encode("def fib(n):")
longer = tokenizer.encode("def fib(n):\n    if n < 2:\n        return n")
caches = DenseCache(config), DenseCache(config)
with torch.inference_mode():  # we only use the model, so PyTorch need not take notes for learning
    for ids, cache in zip((short, longer), caches, strict=True):
        model(torch.tensor([ids]), cache=cache)

shared = len(short)
a, b = (cache.keys[:, :, :, :shared] for cache in caches)
print(f"{len(short)} tokens, and {len(longer)} that begin with them")
print(f"compared: {a.numel():,} numbers in {config.num_hidden_layers} layers")
print("the same, but for rounding:", torch.allclose(a, b, atol=1e-3))

# %% [markdown]
# So they can be kept. The place where they are kept is the **KV cache**: K for keys, V for values. With it, a step runs
# *only what is new*: the whole prompt in the first step (called **prefill**), then one token a step (**decode**).
#
# ## ● The picture
#
# Each row is a token that looks, each column a token it looks at. Move *step* and compare both sides: what is computed again
# on the left lies ready on the right. (The other view, *cost*, is for later.)

# %% id="02-explorer-reuse"
explorers.kv_cache("pico")

# %% [markdown]
# ## ● The same text, with less work
#
# **Question: is it really the same text?**
#
# Here is the loop with a cache. Compare it with lesson 01: only *what goes in* is different.

# %%
cache = DenseCache(config)
ids = torch.tensor([tokenizer.encode("def read_json(path):")])
text = []
with torch.inference_mode():
    for _ in range(16):
        logits = model(ids, cache=cache).logits  # the prompt, and after it one token at a time
        new = logits[0, -1].argmax()
        text.append(int(new))
        ids = new[None, None]  # the next step runs this token alone: shape (1, 1)
print(tokenizer.decode(text))

# %%
predict(
    "02.same",
    "We let pico write 20 tokens after each of three prompts, once with a cache and once without, "
    "always taking the likeliest token. How many of the 60 tokens will **differ**?",
    unit="tokens",
)

# %%
endless = SamplingParams(temperature=0, ignore_eos=True)  # greedy, and no early end: equal lengths to compare
different = 0
totals = {True: 0, False: 0}
for prompt in ("def read_json(path):", "class Stack:\n    def __init__(self):", "for i in range("):
    ids = tokenizer.encode(prompt)
    written = {}
    for use_cache in (True, False):
        with costs.count(model) as work:
            written[use_cache] = generate(model, ids, max_tokens=20, use_cache=use_cache, params=endless)
        totals[use_cache] += work.tokens
    different += sum(x != y for x, y in zip(written[True], written[False], strict=True))
print(f"tokens that differ: {different}")
print(f"tokens processed: {totals[False]:,} without a cache, {totals[True]:,} with it")
predict.compare("02.same", measured=different, unit="tokens")

# %% [markdown]
# Not a shortcut that costs quality, then: the same sums, done once. One honest footnote: a computer adds in a different
# *order* in the two cases, so logits may differ in their last digits. Where two tokens are *equally* likely to within a millionth, one
# loop may take the one and the other the other. It did not happen here, and it is no reason to distrust the cache; it is a
# reason to compare numbers with a tolerance and never with `==`.
#
# ### What exactly becomes cheaper?
#
# The engine's arithmetic (`costs.predict`, which agrees exactly with its counters) counts **FLOPs**, single additions and
# multiplications. It keeps linear layers, where a token is multiplied with the learned weights, and attention apart, as
# in lesson 01. First the work of *one step*, the one that makes token number N; then of all N steps together.

# %%
works = {
    (n, use_cache): costs.predict(config, 1, n, use_cache=use_cache)
    for n in (250, 500, 1000, 2000)
    for use_cache in (False, True)
}


def million_flops(work):
    return f"{work.linear_flops / 1e6:12,.0f}{work.attention_flops / 1e6:12,.0f}"


print("million FLOPs       without a cache            with a cache")
print("                  linear   attention      linear   attention")
for n in (250, 500, 1000, 2000):
    last = [million_flops(works[n, use_cache].steps[-1]) for use_cache in (False, True)]
    print(f"step {n:5}  ", *last, sep="")
for n in (250, 500, 1000, 2000):
    print(f"all {n:5}   ", *(million_flops(works[n, use_cache]) for use_cache in (False, True)), sep="")

# %% [markdown]
# Go down a column of the upper half: N doubles. Without a cache a step's linear work doubles and its attention grows
# four-fold; with one, the linear work **stays the same**, and attention doubles, because the one new token has twice as many
# keys to look at.
#
# The lower half is the sum of the steps, and summing adds one power of N:
#
# | whole text of N tokens | without a cache | with a cache |
# |---|---|---|
# | linear layers | N² (four-fold when N doubles) | **N** (doubles) |
# | attention | N³ (eight-fold) | **N²** (four-fold) |
#
# Many pages write "attention is O(N²), the cache makes it O(N)". (O(N²) reads: it grows like N².) For a single step that is so. For a whole text it is one
# power more: N³ before, and N² is what is *left*, with the cache.

# %% [markdown]
# ## The version you find on the web
#
# The idea fits in a few lines, and many tutorials give it in nearly the same few lines. We take them and let pico run
# on them. (We have only given its decisions, `positions`, `keep` and `mask`, names of their own, so that we can mend them
# one by one.) pico asks three things of a cache: `begin` (how many tokens come, and where do they stand?),
# `attend` (once in every layer), and `end`. `F.scaled_dot_product_attention` is PyTorch's name for the three lines above,
# done for many tokens at once, and for all **heads**: a layer has several attentions side by side, each with queries, keys
# and values of its own. (`enable_gqa` lets two query heads share one key and value; more about that below.)


# %%
class FoundCache:
    def __init__(self, config):
        self.keys = [None] * config.num_hidden_layers
        self.values = [None] * config.num_hidden_layers
        self.use_cache = True

    def begin(self, batch, new, lengths, device):
        return self.positions(new).expand(batch, new)

    def attend(self, layer, q, k, v):  # each (batch, heads, tokens, head_dim)
        if self.use_cache and self.keys[layer] is not None:
            k = torch.cat([self.keys[layer], k], dim=2)  # the old ones, then the new ones
            v = torch.cat([self.values[layer], v], dim=2)
        self.keep(layer, k, v)
        mask = self.mask(q.shape[2], k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    def end(self):
        pass

    def positions(self, new):
        return torch.arange(new)

    def keep(self, layer, k, v):
        self.keys[layer], self.values[layer] = k, v

    def mask(self, new, total):
        return None  # every new token may look at everything


def write(cache, ids, tokens=14):
    """Greedy continuation of these ids with this cache: the new ids."""
    text, ids = [], torch.tensor([ids])
    with torch.inference_mode():
        for _ in range(tokens):
            new = model(ids, cache=cache).logits[0, -1].argmax()
            text.append(int(new))
            ids = new[None, None]
    return text


def show(name, ids):
    print(f"{name:14} {tokenizer.decode(ids)!r}")


prompt = tokenizer.encode("def read_json(path):")
show("right:", write(DenseCache(config), prompt))
show("found:", write(FoundCache(config), prompt))

# %% [markdown]
# No error message, and rubbish. There are four faults in it. We take them one by one, in the order in which they bite.
#
# ### Fault 1: several new tokens, no mask
#
# The prompt goes in as several tokens *at once*. Each of them should look back only, but here the first token also sees the
# last: something that cannot happen when a text is written token by token. A **mask** says who may see whom. With `held`
# tokens in the cache, new token number i stands at place `held + i` and sees the places up to its own:
#
# | | place 0 (held) | place 1 (held) | place 2 (new) | place 3 (new) | place 4 (new) |
# |---|---|---|---|---|---|
# | new token 0 | yes | yes | yes | | |
# | new token 1 | yes | yes | yes | yes | |
# | new token 2 | yes | yes | yes | yes | yes |


# %%
class WithMask(FoundCache):
    def mask(self, new, total):
        places_of_new = torch.arange(total - new, total)[None]
        return engine_visible(places_of_new, total, None)  # the engine's own mask; yours comes next


print("the first new token")
show("right:", write(DenseCache(config), prompt, tokens=1))
show("found:", write(FoundCache(config), prompt, tokens=1))
show("with mask:", write(WithMask(config), prompt, tokens=1))

# %% [markdown]
# The first new token is right again. (A mask hides a place by giving it the score −∞, of which softmax makes the weight 0.)
# Why do so many tutorials get away without it? They show one token at a time, where the newest token may see everything.
#
# ### Exercise 1 · `visible` (full track)
#
# Write the mask: a tensor of `bool` with one row for each of the `new` tokens and one column for each of the
# `held + new` places, True where the token may look. `visible(2, 3)` is the table above.
#
# Useful: `torch.arange(n)` (the numbers 0 … n − 1), `x[:, None]` (a row becomes a column), comparisons such as `<=`.
# Stuck? Run `hint("02.visible")` in a cell of your own.


# %% nbgrader={"solution": true, "grade_id": "02-visible"}
def visible(held, new):
    """Which places each new token may look at: bool (new, held + new)."""
    ### BEGIN SOLUTION
    places = torch.arange(held + new)
    own_place = held + torch.arange(new)
    return places <= own_place[:, None]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "02-visible-check", "points": 2} tags=["raises-exception"]
check("02.visible", visible)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_02 import visible as hidden

hidden(visible)
### END HIDDEN TESTS

# %% [markdown]
# ### Fault 2: no position offset
#
# `add(a, b)` and `add(b, a)` are different, so a model has to know where each token stands. pico *turns* every query and
# every key by an angle that grows with its position; how well a query fits a key then depends on how far apart the two
# stand. (This is called **rotary position embedding**, RoPE.) In the code above, `positions` begins at 0 in every call. For
# the prompt that is right. But the 7th token of a text, run alone, then claims to stand at place 0.


# %%
class WithOffset(WithMask):
    def positions(self, new):
        past = self.use_cache and self.keys[0] is not None
        held = self.keys[0].shape[2] if past else 0  # in layer 0, as in all of them
        return held + torch.arange(new)


show("right:", write(DenseCache(config), prompt))
show("with mask:", write(WithMask(config), prompt))
show("with offset:", write(WithOffset(config), prompt))

# %% [markdown]
# This fault is a nasty one: the text it writes *looks* like Python. Nobody who reads the output alone would suspect the
# cache.
#
# ### Fault 3: no reset
#
# The cache works. Then a second text comes.


# %%
class WithReset(WithOffset):
    def reset(self):
        self.keys = [None] * len(self.keys)
        self.values = [None] * len(self.values)


second = tokenizer.encode("class Stack:\n    def __init__(self):")
show("right:", write(DenseCache(config), second))

cache = WithReset(config)
write(cache, prompt)  # the first text
show("no reset:", write(cache, second))
cache.reset()
show("with reset:", write(cache, second))

# %% [markdown]
# Without `reset` pico believes that it continues the first text (look closely: the answer about a `Stack` speaks of a
# file). On a server the first text may be *another user's*: a stale cache is a leak as well as a bug.
#
# ### Fault 4: `use_cache=False` writes all the same
#
# Suppose that in the middle of an answer we want to run some *other* text for a moment, and promise not to touch the cache.


# %%
class Repaired(WithReset):
    def keep(self, layer, k, v):
        if self.use_cache:
            super().keep(layer, k, v)


def interrupted(cache):
    """Write 7 tokens, run another text without the cache, and write 7 more."""
    first = write(cache, prompt, tokens=7)
    cache.use_cache = False
    write(cache, tokenizer.encode("import os"), tokens=1)
    cache.use_cache = True
    return first + write(cache, first[-1:], tokens=7)  # the 7th token has been chosen, but not yet run


show("uninterrupted:", write(DenseCache(config), prompt))
show("with reset:", interrupted(WithReset(config)))
show("repaired:", interrupted(Repaired(config)))

# %% [markdown]
# The call that was told not to *read* the cache went on to *write* it, and the rest of the answer continued `import os`.
# With the fourth fault mended, the found cache writes what the engine's writes.
#
# ### Exercise 2 · `CachedAttention` (full track)
#
# Build attention with a cache, for one head. `attend` gets query, key and value of the *new* tokens, each of shape
# `(new, dim)`, not yet turned, and returns one row for each of them, `(new, dim)`.
#
# 1. How many tokens are held? None at first, and none for a call with `use_cache=False`.
# 2. Turn queries and keys by their positions: `rope(q, positions)`, `rope(k, positions)`. Positions go on where the held ones
#    end.
# 3. Keys and values to look at: the held ones, then the new ones. Keep them for the next call, unless `use_cache=False`.
# 4. Scores: every query against every key, `q @ keys.T`, divided by `math.sqrt(dim)`. Hide what must not be seen with
#    `scores.masked_fill(hidden, -torch.inf)`, where `hidden` is True for the places to hide.
# 5. Softmax over the last dimension, times the values.
#
# `use_cache=False` treats its tokens as a text of their own and leaves what is held alone. `reset()` forgets everything. You
# may use your `visible`. To try things out, `qkv([3, 1, 4])` makes queries, keys and values of three toy tokens, and
# `torch.cat([a, b])` puts one table below the other.


# %% nbgrader={"solution": true, "grade_id": "02-CachedAttention"}
class CachedAttention:
    """Attention of one head that remembers the keys and values it has seen."""

    def __init__(self):
        ### BEGIN SOLUTION
        self.keys = self.values = None
        ### END SOLUTION

    def attend(self, q, k, v, use_cache=True):
        """q, k, v of the new tokens, each (new, dim), not yet turned -> (new, dim)."""
        ### BEGIN SOLUTION
        past = use_cache and self.keys is not None
        held, new = (len(self.keys) if past else 0), len(q)
        positions = held + torch.arange(new)
        q, k = rope(q, positions), rope(k, positions)
        if past:
            k, v = torch.cat([self.keys, k]), torch.cat([self.values, v])
        if use_cache:
            self.keys, self.values = k, v
        hidden = torch.arange(held + new) > positions[:, None]
        scores = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(hidden, -torch.inf)
        return scores.softmax(-1) @ v
        ### END SOLUTION

    def reset(self):
        """Forget everything."""
        ### BEGIN SOLUTION
        self.keys = self.values = None
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "02-CachedAttention-check", "points": 4} tags=["raises-exception"]
check("02.CachedAttention", CachedAttention)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_02 import CachedAttention as hidden

hidden(CachedAttention)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise 3 · `find_bug` (full track)
#
# Somebody hands you a cache, and you cannot see its code. All of them have `attend(q, k, v)` and `reset()`, as above, but some
# have one of three bugs:
#
# - **offset**: the positions of a later call are wrong;
# - **dimension**: new keys are joined to the old ones along the wrong dimension, so that the second call stops with a
#   `RuntimeError` or answers in a strange shape;
# - **stale**: `reset` does not forget everything.
#
# Write `find_bug(make)`. Each call of `make()` gives you a fresh cache of the same kind. Do experiments with it and return
# `"offset"`, `"dimension"`, `"stale"`, or `"none"` for a right cache. You need no right answer to compare with: think about
# what must be *the same* in any right cache.
#
# One experiment by hand: two tokens at once, and the same two one by one. The second token should get the same answer.
# (`toy_cache("from 0")` makes a cache with the **offset** bug, so here it does not.)

# %%
at_once = toy_cache("from 0").attend(*qkv([3, 1]))
suspect = toy_cache("from 0")
one_by_one = [suspect.attend(*qkv([token])) for token in (3, 1)]
print("at once:   ", at_once[1])
print("one by one:", one_by_one[1][0])


# %% nbgrader={"solution": true, "grade_id": "02-find_bug"}
def find_bug(make):
    """The bug of the caches that make() builds: "offset", "dimension", "stale" or "none"."""
    ### BEGIN SOLUTION
    text = [3, 1, 4, 1, 5]
    whole = make().attend(*qkv(text))
    cache = make()
    try:
        pieces = torch.cat([cache.attend(*qkv(piece)) for piece in (text[:2], text[2:4], text[4:])])
    except RuntimeError:
        return "dimension"
    if pieces.shape != whole.shape:
        return "dimension"
    if not torch.allclose(pieces, whole, atol=1e-4):
        return "offset"
    cache.reset()
    again = cache.attend(*qkv(text))
    return "none" if torch.allclose(again, whole, atol=1e-4) else "stale"
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "02-find_bug-check", "points": 3} tags=["raises-exception"]
check("02.find_bug", find_bug)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_02 import find_bug as hidden

hidden(find_bug)
### END HIDDEN TESTS

# %% [markdown]
# ## Growing is copying
#
# **Question: the repaired cache is right. What is still wrong with it?**
#
# `torch.cat` cannot make a tensor longer. It makes a *new* one and copies both parts into it, so appending one token copies
# all those before it. The cure is to take the memory once, for the longest text to come, and write each token into its
# place: **preallocation**. Reading gives a *slice* of that memory, which copies nothing.
#
# Before you count, guess.

# %%
predict(
    "02.copies",
    "A cache grows by `torch.cat`, one token at a time, to 256 tokens, and another one to 512. "
    "How many times as many bytes does the longer one copy?",
    choices=["2 times", "3 times", "4 times", "8 times"],
)

# %% [markdown]
# PyTorch lets us watch every operation it does; this watcher adds up the bytes that `cat` and writing into a slice put into
# memory. One layer of pico, keys and values.

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class CopiedBytes(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        result = operation(*arguments, **(named or {}))
        if operation.overloadpacket in (torch.ops.aten.cat, torch.ops.aten.copy_):
            self.total += result.nbytes
        return result


token = torch.zeros(2, config.num_key_value_heads, 1, config.head_dim)  # a key and a value for each head


def by_cat(tokens):
    table = token[:, :, :0]
    for _ in range(tokens):
        table = torch.cat([table, token], dim=2)


def preallocated(tokens):
    table = torch.zeros(2, config.num_key_value_heads, tokens, config.head_dim)
    for i in range(tokens):
        table[:, :, i : i + 1] = token


copied = {}
print("tokens      torch.cat    preallocated")
for tokens in (64, 128, 256, 512):
    for grow in (by_cat, preallocated):
        with CopiedBytes() as watch:
            grow(tokens)
        copied[grow, tokens] = watch.total
    print(f"{tokens:6} {copied[by_cat, tokens]:14,} {copied[preallocated, tokens]:15,}   bytes")
times = copied[by_cat, 512] / copied[by_cat, 256]
predict.compare(
    "02.copies", measured=f"{times:.0f} times", note=f"Measured: {times:.2f} times as many bytes."
)

# %% [markdown]
# With `cat` the bytes grow four-fold when the text doubles: 1 + 2 + … + N tokens, that staircase again. Preallocated they
# double. The cache that was to save us from N² brought one in through the back door.
#
# ### Going back for nothing
#
# Preallocated memory has a second gift. To take tokens back, one number is enough: *so many are valid*. What lies behind is
# never looked at and later written over. This is `rewind`, and it is how "regenerate answer" keeps the prompt, and how
# lesson 05 takes back tokens that were only a guess.

# %%
cache = DenseCache(config, max_length=64)
first = write(cache, prompt)
print("tokens held: ", cache.lengths[0])

with CopiedBytes() as watch:
    cache.rewind(len(prompt) - 1)  # all of the prompt but its last token, which we run again
print("after rewind:", cache.lengths[0], "and bytes copied:", watch.total)
print("the same answer again:", write(cache, prompt[-1:]) == first)

# %% [markdown]
# ### Exercise 4 · `KVCache` with `rewind` and `reset` (full track)
#
# Write a cache for one head with room for `size` tokens.
#
# - `append(k, v)`: store the keys and values of new tokens, each `(new, dim)`, behind those held. Return all keys and all
#   values held now, each `(held, dim)`. If there is no room, `raise ValueError("…")` and store nothing.
# - `rewind(length)`: keep the first `length` tokens. More than are held is a `ValueError`.
# - `reset()`: forget everything.
#
# Take the memory once, in `__init__`, and copy nothing that is held already. (`kv([5, 7])` makes keys and values that one can
# read with the naked eye.)


# %% nbgrader={"solution": true, "grade_id": "02-KVCache"}
class KVCache:
    """Keys and values of one head in memory that is taken once."""

    def __init__(self, size, dim):
        ### BEGIN SOLUTION
        self.keys, self.values = torch.zeros(size, dim), torch.zeros(size, dim)
        self.size, self.length = size, 0
        ### END SOLUTION

    def append(self, k, v):
        """k, v (new, dim) -> all keys and values held, each (held, dim)."""
        ### BEGIN SOLUTION
        start, end = self.length, self.length + len(k)
        if end > self.size:
            raise ValueError(f"There is room for {self.size - start} more tokens, not for {len(k)}.")
        self.keys[start:end], self.values[start:end] = k, v
        self.length = end
        return self.keys[:end], self.values[:end]
        ### END SOLUTION

    def rewind(self, length):
        """Keep the first `length` tokens."""
        ### BEGIN SOLUTION
        if length > self.length:
            raise ValueError(f"Only {self.length} tokens are held; one cannot rewind to {length}.")
        self.length = length
        ### END SOLUTION

    def reset(self):
        """Forget everything."""
        ### BEGIN SOLUTION
        self.length = 0
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "02-KVCache-check", "points": 3} tags=["raises-exception"]
check("02.KVCache", KVCache)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_02 import KVCache as hidden

hidden(KVCache)
### END HIDDEN TESTS

# %% [markdown]
# ## ● Memory is the price
#
# **Question: what does one token cost to keep?**
#
# A key and a value (2), in every layer, for every KV head, `head_dim` numbers each:
#
# > bytes per token = 2 × layers × KV heads × head_dim × bytes per number
#
# (*Heads*: a layer has several attentions side by side, each with keys and values of its own.)
#
# Llama-2-7B has 32 layers and 32 KV heads of 128 numbers, 2 bytes each (16 bits). Guess first. (A KiB is 1,024 bytes, a MiB
# 1,024 KiB, a GiB 1,024 MiB.)

# %%
predict(
    "02.gib",
    "One user has a conversation of 4,096 tokens with Llama-2-7B. "
    "About how much memory do its keys and values take?",
    choices=["2 MiB", "20 MiB", "200 MiB", "2 GiB"],
)

# %%
from dataclasses import replace

llama_2_7b = ModelConfig(  # from the models' own config.json
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, head_dim=128,
    hidden_size=4096, intermediate_size=11_008, vocab_size=32_000,
    max_position_embeddings=4096, tie_word_embeddings=False,
)  # fmt: skip
llama_2_70b = replace(llama_2_7b, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8)
llama_31_8b = replace(llama_2_7b, num_key_value_heads=8)  # where the cache is concerned

print("                a token    4,096 tokens   (16 bits a number)")
for name, shape in (
    ("pico", config),
    ("Llama-3.1-8B", llama_31_8b),
    ("Llama-2-70B", llama_2_70b),
    ("Llama-2-7B", llama_2_7b),
):
    per_token = costs.kv_bytes_per_token(shape)
    print(f"{name:13} {per_token / 2**10:6.0f} KiB {4096 * per_token / 2**20:10,.0f} MiB")
weights = 2 * llama_2_7b.num_parameters
print(f"\nThe weights of Llama-2-7B: {weights / 2**30:.1f} GiB")
predict.compare("02.gib", measured="2 GiB")

# %% [markdown]
# Half a MiB for *one token*, a few letters of text. Six such
# conversations need nearly as much memory as the model, and every further user pays again: weights are shared, caches are not. This
# is what limits how many people a server can answer at once.
#
# The largest model of the table is not the most expensive one. Why is that?
#
# Queries are not kept. So a model may have many **query heads** that share a few **KV heads**. Llama-2-70B has 64 query heads
# and 8 KV heads. This is **grouped-query attention** (GQA); pico has it too, 4 and 2. Try it in the picture: change *KV
# heads* and watch how many users a card (a graphics processor with memory of its own) has room for.

# %% id="02-explorer-cost"
explorers.kv_cache("pico", view="cost")

# %% [markdown]
# ## Two ways to pay less, measured
#
# ### Fewer heads, afterwards
#
# Could one halve the KV heads of a finished model? We try it on pico, which runs in 32 bits here (so a token takes twice the
# bytes of the table above): give every query head a KV head of its own (copies), or
# let all share one (the average of the two). The quality is measured by **perplexity**: how many equally likely tokens
# the model hesitates between, on average, before each token of a text. Lower is better. The text is a module of
# Python that pico was never trained on. (A different version of Python may have a slightly different text.)

# %% id="02-gqa" tags=["nbval-ignore-output"]
import fnmatch
import inspect

held_out = [config.bos_token_id, *tokenizer.encode(inspect.getsource(fnmatch))][:1024]


def perplexity(model, cache):
    """Of the held-out text, its keys and values going through this cache."""
    with torch.inference_mode():
        logits = model(torch.tensor([held_out[:-1]]), cache=cache).logits[0]
    return math.exp(F.cross_entropy(logits, torch.tensor(held_out[1:])).item())


def with_kv_heads(kv_heads):
    """pico with its KV heads copied or averaged to this number."""
    changed = Transformer(replace(config, num_key_value_heads=kv_heads))
    weights = model.state_dict()
    for name in weights:
        if "k_proj" in name or "v_proj" in name:
            heads = weights[name].unflatten(0, (-1, config.head_dim))
            if kv_heads > len(heads):
                heads = heads.repeat_interleave(kv_heads // len(heads), dim=0)
            else:
                heads = heads.unflatten(0, (kv_heads, -1)).mean(1)
            weights[name] = heads.flatten(0, 1)
    changed.load_state_dict(weights)
    return changed.eval()


print(f"text: {len(held_out)} tokens\nKV heads    bytes a token    perplexity")
for kv_heads in (4, 2, 1):
    changed = with_kv_heads(kv_heads)
    value = perplexity(changed, DenseCache(changed.config, max_length=1024))
    print(f"{kv_heads:8} {costs.kv_bytes_per_token(changed.config, 4):16,} {value:13.2f}")

# %% [markdown]
# Four KV heads cost twice the memory and change nothing: they are copies. One KV head halves the memory, and pico loses its
# mind. So GQA is a decision of the people who *train* a model. Forced on it later, it costs a lot; learned, it costs little (so
# its authors report, Ainslie et al. 2023; pico cannot tell, as there is no pico that was trained without).
#
# ### Fewer bits a number
#
# What you *can* do later is store each number in fewer bits. **INT8** keeps one byte a number, plus a scale and an offset for
# each token and head (lesson 03 explains how). Our cache does it while it runs, and nothing else about the model changes.

# %% id="02-int8" tags=["nbval-ignore-output"]
print("cache       bytes of 1,024 places   perplexity")
for quantization in (None, "int8", "int4"):
    cache = DenseCache(config, max_length=1024, quantization=quantization)
    value = perplexity(model, cache)
    print(f"{quantization or 'float32':8} {cache.nbytes:20,} {value:14.2f}")

# %% [markdown]
# Measured with all that is stored, scales included, 8 bits are really 8.5, and 4 are 4.5. INT8 leaves the first
# two decimals of the perplexity alone; INT4 costs a little, and one can see it. (A server usually begins
# at 16 bits, so there INT8 halves the cache and does not quarter it.) This is one text and one small model:
# a reason to try it on yours, not a proof.
#
# ### Exercise 5 · `kv_bytes` (full track)
#
# Real models state their shape in a file `config.json`. Work out from it how many bytes the keys and values of `tokens` tokens
# take, as a whole number. `config` is a dict with the entries
#
# - `num_hidden_layers`, `hidden_size`, `num_attention_heads` (the query heads), and sometimes
# - `num_key_value_heads`: if it is missing, there are as many as query heads;
# - `head_dim`: if it is missing, it is `hidden_size // num_attention_heads`.
#
# `bits` is the number of bits of one number (without scales).


# %% nbgrader={"solution": true, "grade_id": "02-kv_bytes"}
def kv_bytes(config, tokens, bits=16):
    """Bytes of the KV cache for so many tokens: int."""
    ### BEGIN SOLUTION
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * tokens * bits // 8
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "02-kv_bytes-check", "points": 2} tags=["raises-exception"]
check("02.kv_bytes", kv_bytes)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_02 import kv_bytes as hidden

hidden(kv_bytes)
### END HIDDEN TESTS

# %% [markdown]
# ## When it does not pay, and what it costs besides
#
# **One token wanted.** Whoever only asks for a single token (which of two answers is likelier? is this text spam?) runs the
# prompt once, cache or not. Then the cache is memory for nothing:

# %%
for use_cache in (False, True):
    with costs.count(model) as work:
        generate(model, held_out[:64], max_tokens=1, use_cache=use_cache, params=endless)
    print(f"use_cache={use_cache!s:5}  tokens processed: {work.tokens}")
    print(f"                 bytes written to the cache: {work.kv_bytes_written:,}")

# %% [markdown]
# **Long texts.** Computing less does not mean *reading* less. Each step has to fetch all keys and values from memory, besides
# the weights. At what length is the cache the larger part? For Llama-2-7B with 16 bits a number:

# %%
per_token = costs.kv_bytes_per_token(llama_2_7b)
print("tokens held, all users together    of what a step reads, the cache is")
for held in (1_000, 4_096, 4 * 4_096, 16 * 4_096):
    print(f"{held:16,} {held * per_token / (held * per_token + weights):31.0%}")
print(f"equal at {weights / per_token:,.0f} tokens")

# %% [markdown]
# With sixteen full conversations at once, a step spends most of its reading on caches. That is why fewer KV heads and fewer bits
# make a busy server *faster* and not only roomier.
#
# **Reserved is not used.** Preallocation takes the memory for the longest text, whatever comes.

# %%
cache = DenseCache(config)  # room for pico's whole context, 2,048 tokens
write(cache, prompt)
used = cache.lengths[0] * costs.kv_bytes_per_token(config, 4)
print(f"reserved {cache.nbytes:,} bytes, used {used:,}: {used / cache.nbytes:.1%}")

# %% [markdown]
# `cat` takes no more than it needs but copies without end; one large piece copies nothing, but most of it lies idle. The way out
# is the one that operating systems found for programs: memory in small **blocks**, handed out one by one as a text grows; a
# *block table* lists those of a text. Texts that begin alike can share blocks: *count* says how many texts hold one, and
# whoever must write into a shared block gets a copy of it first (*copy-on-write*). Go through the events in the picture,
# beside which the one large piece is called a *slab*. You will build the part that hands out the blocks in lesson 04.

# %% id="02-explorer-blocks"
explorers.paged_blocks()

# %% [markdown]
# ## Quiz

# %% nbgrader={"grade": true, "grade_id": "02-quiz", "points": 7}
quiz("02_kv_cache")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("02_kv_cache")
### END HIDDEN TESTS

# %% [markdown]
# ## ● What you should be able to say now
#
# - A new token needs the *keys and values* of all tokens before it, and not their queries. They never change, so they are kept.
# - The text stays the same token for token. Linear work falls from N² to N, attention from N³ to N².
# - A right cache continues the *positions*, *masks* several new tokens, can be *reset*, and is not written to by a call that
#   does not use it. None of the four faults stops with an error. (Full track.)
# - `torch.cat` copies N² bytes; preallocated memory copies each token once, and `rewind` copies nothing. (Full track.)
# - The price is memory: 2 × layers × KV heads × head_dim numbers a token, half a MiB for Llama-2-7B. GQA (in training) and
#   INT8 (any time) bring it down.
#
# **Next:** lesson 03, quantization: how few bits can a number have? Where you stand: `lesson progress` in a terminal.
