# %% [markdown]
# # 08 · Your own engine
#
# **An evening or two, 2 to 3 hours** (reading without the exercises: 20 minutes).
#
# You have written the parts: a cache, a batcher, a rule for drafts. In this lesson you put them together into one engine
# of your own, about 100 to 150 lines. It is checked on a toy model by its answers and its counters, and then it runs on pico
# and gets a place on a leaderboard, by the *work* it needs for each token. After that: what each lesson saved, all in one
# table, and where to go from here.

# %%
import heapq
import inspect

import torch  # for the parts that you bring along
from lessonlib import LLM, SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.classroom.checks.lesson_08.race import BOARD, Race
from lessonlib.classroom.checks.lesson_08.runners import PicoRunner, ToyRunner
from lessonlib.classroom.leaderboard import leaderboard
from lessonlib.engine import costs, load_model, perplexity, quantize_model

race = Race()  # pico, and eight requests for it
model, tokenizer = race.model, race.tokenizer
print(f"pico: {model.config.num_parameters:,} parameters, {model.config.num_hidden_layers} layers")

# %% [markdown]
# ## What is an engine?
#
# **Question: a model gives logits. What is missing until eight people get eight answers?**
#
# Somebody has to decide *who* runs in the next forward pass, *which* of their tokens run, *where* their keys and values are
# kept, and *when* each of them is done. That somebody is the engine. Every part of it has been a lesson:
#
# | part | decides | you wrote it in |
# |---|---|---|
# | queue and slots | who runs next | lesson 04, `ContinuousBatcher` |
# | cache | what is kept, and taken back | lesson 02, `KVCache` |
# | attention with a past | who sees what | lesson 02, `visible` and `CachedAttention` |
# | drafts | which guesses stand | lesson 05, `verify` |
# | shared beginnings | what need not be run at all | lesson 04, `BlockAllocator.share` |
# | weights in fewer bits | how much a pass reads | lesson 03, `quantize_int8`, `quantize_int4` |
#
# You may copy your own code from those lessons into the cells below, and that is the idea. (Two of the six stay outside of
# the engine, *inside* the model: attention, and the weights. The engine cannot tell whether they are quantized.)
#
# Here is once more what slots and a queue do; watch who runs in which pass.

# %% id="08-batching"
explorers.batching()

# %% [markdown]
# ## The model, as an engine sees it
#
# **Question: eight texts, all of different lengths, in one pass. Without padding?**
#
# In the exercises of lesson 04 short rows were filled up. Real engines do not: they lay the new tokens of all texts end to end, in one long
# row, and keep each text's past in a place of its own. So your engine gets a model that is called like this:
#
# ```python
# logits = model([(tokens_of_a, caches_of_a), (tokens_of_b, caches_of_b)])     # ONE forward pass
# ```
#
# A **part** is a pair: the *new* tokens of one text, and the caches that hold everything of this text before them. There is
# one cache for each layer of the model. What comes back is one tensor for each part, `(new tokens, vocabulary)`. The new
# tokens are in the caches afterwards.
#
# Try it with the toy model. Its next token is easy to work out: the sum of all tokens that the caches hold, plus how many
# they are, plus the last one again, and of that the last digit.

# %%
toy = ToyRunner()
caches = toy.new_caches(10)  # a list: one cache for each layer, with room for 10 tokens
logits = toy([([1, 2, 3], caches)])  # a list of parts goes in …
print("shape of the first part's logits:", tuple(logits[0].shape))  # … a list of tensors comes out
print("likeliest after each token:      ", logits[0].argmax(-1).tolist())
print("held by each layer's cache:      ", [cache.length for cache in caches])
print("passes:", toy.forward_calls, " tokens run:", toy.tokens)

# %% [markdown]
# After 1, 2, 3: the sum is 6, they are three, the last one is 3, together 12, so **2** comes next. It is the last of the
# three answers; those before it tell what would have come after 1 and after 1, 2.
#
# The next pass runs only that new token. Beside it, in the same pass, a second text:

# %%
other = toy.new_caches(10)
first, second = toy([([2], caches), ([4, 4, 4, 4], other)])
print("first text: ", first.argmax(-1).tolist(), " held:", caches[0].length)
print("second text:", second.argmax(-1).tolist(), " held:", other[0].length)
print("passes:", toy.forward_calls, " tokens run:", toy.tokens)

# %% [markdown]
# A cache has three things, the same as your `KVCache` of lesson 02:
#
# - `cache.append(k, v)`: called by the model, not by you (but for the extra *reuse*, in the end);
# - `cache.rewind(length)`: keep the first `length` tokens;
# - `cache.length`: how many are held.
#
# **Your own works here.** In place of `model.new_caches(size)` write
# `[KVCache(size, model.dim) for _ in range(model.layers)]` (it needs the attribute `length`; if yours is called otherwise,
# rename it).
#
# pico stands behind the same door. Nothing in your engine has to change for it.

# %%
runner = PicoRunner(model)
prompt = tokenizer.encode("def add(a, b):\n    return")
caches = runner.new_caches(len(prompt) + 4)
todo, text = prompt, list(prompt)
for _ in range(4):
    token = int(runner([(todo, caches)])[0][-1].argmax())
    text.append(token)
    todo = [token]
print(tokenizer.decode(text))
print(f"{len(caches)} caches; passes: {runner.forward_calls}, tokens run: {runner.tokens}")

# %% [markdown]
# ### Exercise 1 · `decode`
#
# Warm up with one text. `decode(model, prompt, max_tokens, eos_id)` returns a list with the *new* tokens, greedy:
#
# - the prompt is run in **one** pass, then **one** token in each pass;
# - it ends with `eos_id` (which belongs to the answer), or after `max_tokens` tokens, whichever comes first;
# - nothing is run that nobody needs: the last token is never run.
#
# You have just seen most of it. Stuck? Run `hint("08.decode")` in a cell of your own.


# %% nbgrader={"solution": true, "grade_id": "08-decode"}
def decode(model, prompt, max_tokens, eos_id):
    """The new tokens after a prompt, greedy: a list of ids."""
    ### BEGIN SOLUTION
    caches = model.new_caches(len(prompt) + max_tokens)
    todo, new = list(prompt), []
    while True:
        logits = model([(todo, caches)])[0]
        new.append(int(logits[-1].argmax()))
        if new[-1] == eos_id or len(new) == max_tokens:
            return new
        todo = new[-1:]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "08-decode-check", "points": 2} tags=["raises-exception"]
check("08.decode", decode)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_08 import decode as hidden

hidden(decode)
### END HIDDEN TESTS

# %% [markdown]
# ## Drafts that leave no trace
#
# **Question: a wrong guess went through the model. What is wrong with the caches now?**
#
# In lesson 05 `verify` ran the whole text with the drafts behind it, without a cache. With caches only the last token and
# the drafts are run, but then the drafts' keys and values are *in* the caches, the rejected ones too. Watch:

# %%
toy = ToyRunner()
caches = toy.new_caches(10)
toy([([1, 2], caches)])
guesses = [9, 8]  # for what comes after 1, 2, 7; both are wrong
own = toy([([7, *guesses], caches)])[0].argmax(-1).tolist()
print("the model's own token after 1, 2, 7:", own[0], " guessed:", guesses[0])
print("held:", caches[0].length, "tokens, but the text has only 3 so far")
wrong = toy([(own[:1], caches)])[0].argmax(-1).tolist()

clean = toy.new_caches(10)
right = toy([([1, 2, 7, own[0]], clean)])[0].argmax(-1).tolist()[-1:]
print("next token, looking at the rejected guesses:", wrong, " without them:", right)

# %% [markdown]
# No error and no warning: just a different text. Whatever was run and does not stand has to be taken out of *every* layer's
# cache, with `rewind`.
#
# ### Exercise 2 · `speculate`
#
# `speculate(model, caches, text, drafts)`: the caches hold all of `text` **but its last token**. In **one** pass, find out
# which drafts stand, and return those and one token of the model's own (lesson 05's rule for temperature 0). Afterwards
# the caches hold `text` and the drafts that stand, nothing more. With `drafts == []` it is a plain step.


# %% nbgrader={"solution": true, "grade_id": "08-speculate"}
def speculate(model, caches, text, drafts):
    """The drafts that stand and one token of the model's own: a list of ids. The caches are left clean."""
    ### BEGIN SOLUTION
    own = model([([text[-1], *drafts], caches)])[0].argmax(-1).tolist()
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    for cache in caches:
        cache.rewind(len(text) + stands)
    return own[: stands + 1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "08-speculate-check", "points": 3} tags=["raises-exception"]
check("08.speculate", speculate)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_08 import speculate as hidden

hidden(speculate)
### END HIDDEN TESTS

# %% [markdown]
# ## The engine
#
# **Question: eight requests, four slots. How few passes can it be?**
#
# These requests will be the race. They ask pico to go on with a class, and all begin with the same lines.

# %%
print(tokenizer.decode(race.requests["A"][0]))
print("request        ", "   ".join(race.requests))
print("prompt tokens  ", " ".join(f"{len(p):3}" for p, _ in race.requests.values()))
print("answer tokens  ", " ".join(f"{n:3}" for _, n in race.requests.values()))

# %%
predict(
    "08.passes",
    "Four slots, continuous batching, no drafts. The eight answers have "
    f"{' + '.join(str(n) for _, n in race.requests.values())} = "
    f"{sum(n for _, n in race.requests.values())} tokens. How many forward passes?",
    unit="passes",
)

# %%
predict(
    "08.run",
    "And how many tokens go through the model, if each is run once and nothing is shared? "
    f"The prompts have {sum(len(p) for p, _ in race.requests.values())} tokens together.",
    unit="tokens",
)

# %% [markdown]
# Locked? The course's own engine, with prefix reuse off:

# %%
batched = race.course_engine(enable_prefix_caching=False)
predict.compare("08.passes", measured=batched.passes, unit="passes")
predict.compare("08.run", measured=batched.run, unit="tokens")

# %% [markdown]
# Without drafts no plan can do with fewer passes than a fourth of all tokens, 160 / 4 = 40, for there are four slots. The
# rest come from the end, when the queue is empty and slots run dry: G starts last, in pass 23, and needs 30. And the
# tokens: all of the prompts, and of each answer all but the last token, which nobody ever runs: 927 + 160 − 8.
#
# ### Exercise 3 · `Engine`
#
# Put it together. The interface is given:
#
# - `Engine(model, slots, eos_id)`: at most `slots` requests run at the same time.
# - `add(name, prompt, max_tokens)`: a request joins the queue. First come, first served. Runs nothing.
# - `step()`: lets in whoever there is room for, runs **one** forward pass with everybody in it, and retires those who are
#   done (`max_tokens` reached, or the new token is `eos_id`, which belongs to the answer). Returns `{name: [token]}` for
#   everybody who ran; with nobody there it returns `{}` and does not call the model.
#
# It is graded by **answers** (token for token those of the plain loop) and by **counters**: no token is run twice, one
# pass a step at most, never more than `slots` parts in it.
#
# **The extras** are up to you; they are not graded, but the leaderboard sees them. They have to be *off* unless asked for,
# for instance `Engine(model, slots, eos_id, drafts=4, reuse=True)`:
#
# - *drafts*: guess with lesson 05's `look_up`, judge as in `speculate` (the pass in the middle is now shared by everybody).
#   The list in `{name: [tokens]}` then has several tokens. Never more than `max_tokens` all together, and nothing behind
#   `eos_id`.
# - *reuse*: a request that begins like an earlier one takes over the keys and values of what they have in common. The
#   simplest way: keep the caches of earlier requests together with their texts, and begin with
#   `mine.append(theirs.keys[:n], theirs.values[:n])` in every layer. (`keys` and `values` are
#   the memory, of which the first `length` rows count; call your own so, too.) Leave at least one token to run: caches hold
#   no logits, and there would be nothing to choose the next token from.
#
# A good order: the plain engine first, until the check passes. Then its first place on the board. Then one extra at a time.


# %% nbgrader={"solution": true, "grade_id": "08-Engine"}
class Engine:
    """Continuous batching with caches: one pass a step, every token once."""

    def __init__(self, model, slots, eos_id, drafts=0, reuse=False):
        self.model, self.slots, self.eos_id = model, slots, eos_id
        self.drafts, self.reuse = drafts, reuse
        self.waiting, self.running = [], []
        self.earlier = []  # for the extra "reuse": whose caches are still there

    def add(self, name, prompt, max_tokens):
        """A request joins the queue."""
        ### BEGIN SOLUTION
        self.waiting.append({"name": name, "text": list(prompt), "left": max_tokens})
        ### END SOLUTION

    def step(self):
        """Let in, one forward pass, retire; returns {name: [new tokens]} of all that ran."""
        ### BEGIN SOLUTION
        while self.waiting and len(self.running) < self.slots:
            self._let_in(self.waiting.pop(0))
        if not self.running:
            return {}
        parts, guesses = [], []
        for request in self.running:
            text, held = request["text"], request["caches"][0].length
            guesses.append(self._look_up(text)[: min(self.drafts, request["left"] - 1)])
            parts.append(([*text[held:], *guesses[-1]], request["caches"]))
        answers = self.model(parts)
        new = {}
        for request, drafts, logits in zip(self.running, guesses, answers, strict=True):
            own = logits[len(logits) - len(drafts) - 1 :].argmax(-1).tolist()
            new[request["name"]] = self._keep(request, drafts, own)
        self.running = [r for r in self.running if r["left"] and r["text"][-1] != self.eos_id]
        return new

    def _let_in(self, request):
        text, caches = request["text"], self.model.new_caches(len(request["text"]) + request["left"])
        common, donor = max(((self._common(text, e), i) for i, e in enumerate(self.earlier)), default=(0, 0))
        for i in range(len(caches) if common else 0):
            theirs = self.earlier[donor]["caches"][i]
            caches[i].append(theirs.keys[:common], theirs.values[:common])
        request["caches"] = caches
        self.running.append(request)
        if self.reuse:
            self.earlier.append(request)

    def _common(self, text, earlier):
        """How many tokens both begin with, at most those held there, and all of `text` but one."""
        most = min(len(text) - 1, earlier["caches"][0].length)
        return next((i for i in range(most) if text[i] != earlier["text"][i]), most)

    def _look_up(self, text, n=2):
        """What followed the last time that the text read as it does now."""
        for at in range(len(text) - n - 1, -1, -1) if self.drafts else ():
            if text[at : at + n] == text[-n:]:
                return text[at + n :]
        return []

    def _keep(self, request, drafts, own):
        """Append what stands, and leave nothing else in the caches."""
        stands = 0
        while stands < len(drafts) and drafts[stands] == own[stands] != self.eos_id:
            stands += 1
        for cache in request["caches"]:
            cache.rewind(len(request["text"]) + stands)
        request["text"] += own[: stands + 1]
        request["left"] -= stands + 1
        return own[: stands + 1]
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "08-Engine-check", "points": 6} tags=["raises-exception"]
check("08.Engine", Engine)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_08 import Engine as hidden

hidden(Engine)
### END HIDDEN TESTS

# %% [markdown]
# ## The race
#
# **Question: how much work is a token?**
#
# Two counters describe what an engine makes a machine do: its *passes* (each reads all of the weights) and the *tokens run*
# (each is multiplied with all of the weights). To rank engines we need one number. We take the formula of lesson 04's
# simulator, 5 ms for a pass and 0.1 ms for each token in it: a pass counts as much as **50** tokens.
#
# > work per token = (50 × passes + tokens run) / tokens made
#
# The 50 is a model of *one* machine. A laptop without fast arithmetic has a smaller number, a large GPU a larger one, and
# with another number the places may change. That is why the table shows both counters.
#
# First the references, measured now: the loop of lesson 01, the same with a cache, and the course's engine with one
# technique after the other.

# %%
references = {
    "no cache, one by one": race.reference(use_cache=False),
    "cache, one by one": race.reference(use_cache=True),
    "cache, slots": batched,
    "cache, slots, reuse": race.course_engine(),
    "cache, slots, reuse, n-grams": race.course_engine(speculative_model="ngram"),
}
leaderboard(BOARD, references)

# %% [markdown]
# All five gave exactly the same 160 tokens; an engine with other answers is not placed at all. Now yours. Each line below
# runs your engine on pico and enters it as one more attempt. The board is a file in your own folder: nobody else sees it,
# and every attempt stays.

# %% id="08-enter"
race.enter("plain", Engine)
# race.enter("with drafts", lambda model, slots, eos_id: Engine(model, slots, eos_id, drafts=4))
# race.enter("with reuse", lambda model, slots, eos_id: Engine(model, slots, eos_id, reuse=True))
leaderboard(BOARD, references)

# %% [markdown]
# A plain engine that passes the check lands exactly where *cache, slots* is: with the same rules there is nothing left to
# win. Then take away the `#` and see what your extras bring.
#
# ## Where it loses
#
# **More drafts are not better drafts.** Twice as many guesses in each pass:

# %%
for k in (4, 8):
    work = race.course_engine(speculative_model="ngram", num_speculative_tokens=k)
    print(f"{k} drafts: {work.passes} passes, {work.run} tokens run, work per token {work.per_token:.1f}")

# %% [markdown]
# A pass is saved, and dozens of tokens more are run for it: no gain. (These are good conditions: greedy pico repeats
# itself, and lesson 05 told what that is worth.)
#
# **Reuse needs something in common, and somebody who came before.** The first four requests run in the same pass and can
# reuse nothing of each other; the other four can. With beginnings that differ, nobody can:

# %%
short = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
prompts = [prompt for prompt, _ in race.requests.values()]
for name, asked in (
    ("as they are", prompts),
    ("a number in front of each", [[100 + i, *p] for i, p in enumerate(prompts)]),
):
    outputs = LLM("pico", max_num_seqs=4).generate(asked, short)
    print(f"{name:26} {sum(out.metrics.tokens_cached for out in outputs):4} tokens reused")

# %% [markdown]
# **A batch needs company.** Four slots and a single request:

# %%
for slots in (1, 4):
    with costs.count((llm := LLM("pico", max_num_seqs=slots)).model) as work:
        llm.generate(prompts[:1], short)
    print(f"slots={slots}, one request: {work.forward_calls} passes, {work.tokens} tokens run")

# %% [markdown]
# The same passes and the same tokens: three of the four slots stood empty.
#
# **And work is not time.** The counters leave out attention, which grows with the length of the text (lesson 02), your
# machine's own speed, and Python. On the clock a clever engine with slow bookkeeping can lose against a dull one. Lesson 06
# measured with a clock; do the same before you believe a board.
#
# ## The whole course in one table
#
# **Question: what did each lesson save, and what did it cost?**
#
# Everything in this table is counted on pico, in this cell and in the race. For each technique: what it changes, and the
# price.


# %%
def line(*cells):
    print("{:6}  {:20}  {:20} {:>10} {:>10}   {}".format(*map(str, cells)))


line("lesson", "technique", "what is counted", "without", "with", "the price")
plain, cached, _, reused, drafted = references.values()
longest = max(len(p) + n for p, n in race.requests.values())
mib = longest * costs.kv_bytes_per_token(model.config, 4) / 2**20
line("02", "KV cache", "tokens run", plain.run, cached.run, f"memory: {mib:.1f} MiB for the longest text")

held_out = tokenizer.encode(inspect.getsource(heapq))[:1024]  # code that pico has not seen (lesson 03)
before = perplexity(model, held_out).perplexity
for mode in ("int8", "int4"):
    small = quantize_model(load_model("pico"), mode)
    sizes = [f"{costs.stored_weight_bytes(m) / 2**20:.1f} MiB" for m in (model, small)]
    loss = f"perplexity {before:.2f} → {perplexity(small, held_out).perplexity:.2f}"
    line("03", f"{mode} weights", "weights a pass reads", *sizes, loss)

line("04", "continuous batch", "passes", cached.passes, batched.passes, "each pass is shared with others")
line("04", "prefix reuse", "tokens run", batched.run, reused.run, "memory: finished caches are kept")
wasted = f"tokens run {reused.run} → {drafted.run}"
line("05", "n-gram drafts", "passes", reused.passes, drafted.passes, wasted)

llm = LLM("pico")
with costs.count(llm.model) as work:
    pieces = llm.stream(prompts[0], SamplingParams(temperature=0, max_tokens=24, ignore_eos=True))
    next(pieces)
    first_text = work.forward_calls
    rest = list(pieces)
line("06", "streaming", "passes to first text", work.forward_calls, first_text, "the work is the same")

computed = []
for salts in (("", ""), ("ann", "bob")):
    llm = LLM("pico")
    outputs = [llm.generate([prompts[0]], short, cache_salt=salt)[0] for salt in salts]
    computed.append(outputs[1].metrics.tokens_computed)
line("07", "a salt for each user", "second user's tokens", *computed, "no reuse between users")

# %% [markdown]
# Read the last column first: **nothing in this course is free.** The KV cache comes nearest to it, for it changes the order
# of growth, and hardly an engine runs without one; its price is memory. Everything is an exchange, and whether it pays depends on
# what is scarce where you are:
#
# | technique | you pay with | do not use it when |
# |---|---|---|
# | KV cache | memory, for every token of every text | you need one token after the prompt, and never come back (scoring, classification) |
# | quantization | a little quality, and conversion on the way | there is no fused kernel for your chip, or computing is the limit: then it saves memory, not time |
# | continuous batching | a slower flow for each single text | there is only one user, or all begin and end together (then a static batch does as well) |
# | prefix reuse | memory for those who are gone; a timing leak | beginnings differ, or users must not learn about each other |
# | drafts | tokens that are run in vain | the batch is large (the machine computes all the time anyway), or guesses are bad |
# | streaming | an output filter has to work on pieces | the caller is a program that needs the whole answer |
# | salts, limits, filters | reuse lost, some honest users turned away | never leave out the limits; measure the rest |
#
# Three habits are worth more than any of these: **count before you time**, **compare token for token before you believe a
# speed-up**, and **say under which conditions** a number was measured.
#
# ## Where to go next
#
# **Read a small engine first, then a large one.** You know the parts now, so look for them. (Files move; if a path is gone,
# search for the name of the class.)
#
# 1. **The engine of this course**, `lessonlib/engine`: the order to read it in stands in its `__init__.py`. It is
#    your engine with all that you left out: sampling, chunked prefill, preemption, paged memory.
# 2. **nano-vLLM**: an engine of a thousand lines or so with the structure of a large one. `engine/scheduler.py`, then
#    `engine/block_manager.py`, then `engine/model_runner.py`.
# 3. **vLLM**, from the inside out: `vllm/v1/core/sched/scheduler.py` (its `schedule` is your `step` up to the pass), then
#    `vllm/v1/core/kv_cache_manager.py` and `block_pool.py` (your `BlockAllocator`), then `vllm/v1/worker/` (the pass).
# 4. **SGLang**: `python/sglang/srt/mem_cache/radix_cache.py`. It keeps shared beginnings in a tree, so that a prefix can be
#    found token by token and not only block by block. Then the scheduler in `srt/managers/`.
# 5. **llama.cpp**: `src/llama-context.cpp` (`decode`), `src/llama-kv-cache.cpp`, `src/llama-quant.cpp`. Another world: one
#    machine, few users, every byte counts.
#
# **Papers**, one for each idea, in the order of the course:
#
# - Pope et al. 2022, *Efficiently Scaling Transformer Inference*: when memory is the limit and when arithmetic is.
# - Dettmers et al. 2022, *LLM.int8()*, and Frantar et al. 2022, *GPTQ*: outliers, and how to round with care.
# - Yu et al. 2022, *Orca*: scheduling between any two passes. Kwon et al. 2023, *PagedAttention*: memory in blocks.
# - Agrawal et al. 2024, *Sarathi-Serve*: long prompts in pieces.
# - Leviathan et al. 2023 and Chen et al. 2023: speculative decoding with its proof, found twice.
# - Zheng et al. 2024, *SGLang*: the tree of prefixes. Dao et al. 2022, *FlashAttention*: what happens inside `attend`.
#
# **Things to build** on your engine, from easy to hard: sampling with a seed for each request · a limit on the memory of all
# caches together, and what to do when it is reached · long prompts in pieces · blocks instead of one piece for each text ·
# a draft model · an HTTP server in front of it (lesson 06 has one that you can copy).
#
# ## Quiz
#
# Questions from the whole course.

# %% nbgrader={"grade": true, "grade_id": "08-quiz", "points": 7}
quiz("08_capstone")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("08_capstone")
### END HIDDEN TESTS

# %% [markdown]
# ## What you should be able to say now
#
# - An engine decides who runs, which of their tokens, where their past is kept, and when they are done. The model does the
#   rest.
# - One pass takes the new tokens of all texts end to end: no padding, and each text has caches of its own.
# - Whatever was run and does not stand has to leave *every* layer's cache.
# - Same answers first, counters second, clock last.
# - Each technique has a price and a place where it loses, and you have measured both.
#
# **That was the course.** Where you stand: `lesson progress` in a terminal, or `progress()` in lesson 00. Thank you for the
# evenings.
