# %% [markdown]
# # 04 · Batching
#
# **An evening:** 30 to 45 minutes to read, run and play, then the exercises. (Core track, the sections marked ●
# without their exercises: 6 minutes.)
#
# Until now one text at a time had the machine to itself. Now eight people ask at once. In this lesson you find out why
# serving them together costs far less than eight times serving one, why the obvious way to do it gives much of that away
# again, and how real servers win it back: by letting requests in and out at *every* step, and by handing out memory in
# small blocks.

# %%
from itertools import pairwise
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from lessonlib import LLM, SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.engine import (
    BlockPool,
    ContinuousBatcher as EngineBatcher,  # your own version will be called ContinuousBatcher
    DenseCache,
    PagedCache,
    Request,
    Scheduler,
    Span,
    StaticBatcher,
    costs,
    generate,
    load_model,
    load_tokenizer,
)
from lessonlib.engine.simulator import Arrival, replay, replay_static

tokenizer = load_tokenizer("pico")
model = load_model("pico")
config = model.config
print(f"pico: {config.num_parameters:,} parameters, context {config.max_position_embeddings:,} tokens")

# %% [markdown]
# ## ● Why would anybody share?
#
# **Question: one forward pass for one text, or one forward pass for eight. How much longer does it take?**
#
# Several texts in one pass are a **batch**; each of them is a *row*, or, seen from the machine, a **slot**. Everybody gets
# one token out of the pass. Guess first.

# %%
predict(
    "04.pass",
    "A decode step (one new token for everybody, with KV caches) for **8** texts instead of 1. "
    "How many times as many bytes of **weights** does the machine have to read?",
    choices=["1 time: the same", "2 times", "4 times", "8 times"],
)


# %%
def decode_step(rows):
    """So many rows with 64 tokens each in a KV cache; returns a function that runs one more token each."""
    cache = DenseCache(config, rows, 128)
    model(torch.full((rows, 64), 17), cache=cache, last_only=True)
    return lambda: model(torch.full((rows, 1), 17), cache=cache)


print("rows   weight bytes read      million FLOPs   FLOPs for each byte")
read = {}
for rows in (1, 2, 4, 8, 16, 32):
    with torch.inference_mode():
        step = decode_step(rows)
        with costs.count(model) as work:
            step()
    read[rows] = work.weight_bytes
    print(
        f"{rows:4} {work.weight_bytes:19,} {work.flops / 1e6:18,.0f} {work.flops / work.weight_bytes:21.1f}"
    )
times = read[8] // read[1]
predict.compare("04.pass", measured=f"{times} time: the same" if times == 1 else f"{times} times")

# %% [markdown]
# The *computing* grows with the rows, the *reading* does not: each weight is fetched once and used for all rows. And with
# few rows, fetching is what takes the time: a processor can do dozens of multiplications in the time in which one number
# arrives from memory. So the first rows of a batch ride along almost for nothing. The clock, on this machine (your numbers
# will differ):


# %% id="04-clock" tags=["nbval-ignore-output"]
def shortest(step, tries=12):
    """The shortest of several tries, in seconds: whatever disturbs a measurement makes it longer."""
    waits = []
    for _ in range(tries):
        begin = perf_counter()
        step()
        waits.append(perf_counter() - begin)
    return min(waits)


with torch.inference_mode():
    for rows in (1, 4, 16):
        seconds = shortest(decode_step(rows))
        print(
            f"{rows:4} rows: {seconds * 1000:6.1f} ms a step, {rows / seconds:6,.0f} tokens a second for all together"
        )

# %% [markdown]
# Each single text gets slower in company, and all together get faster. How much of each depends on the machine: a laptop's
# processor is soon busy computing, and then every further row costs time; a large GPU has room for hundreds of rows.
#
# ### A closer look: when is the ride over? (full track)
#
# A chip has two limits: how fast it computes, and how fast it reads. A step takes as long as the *slower* of the two. Move
# *batch* and watch the point climb until it hits the roof; then choose a laptop. (`context` is how many tokens each text
# has in its KV cache. Those have to be read as well, and they are *not* shared. The *ridge* is the corner of the roof: with
# so many FLOPs a byte, computing and reading take equally long.)

# %% id="04-roofline"
explorers.roofline(batch=8)

# %% [markdown]
# ## ● The obvious way: a static batch
#
# **Question: eight requests, four slots. What happens to a slot whose text is done?**
#
# Here are eight prompts and how many tokens each will get. (`ignore_eos` makes the lengths exact, so that we can compare; a
# server knows no length beforehand.)

# %%
beginnings = [
    "def add(a, b):",
    "import os\nimport re\n\n\ndef find_files(folder, pattern):\n    ",
    "class Stack:\n    def __init__(self):",
    "x = ",
    "try:\n    import json\nexcept ImportError:",
    "for i in range(",
    "def main(argv):\n    ",
    "print(",
]
prompts = [tokenizer.encode(text) for text in beginnings]
wanted = [4, 24, 6, 8, 5, 20, 7, 6]


def requests(prompts=prompts, wanted=wanted):
    """Fresh requests for the engine."""
    return [
        Request(list(prompt), SamplingParams(temperature=0, max_tokens=n, ignore_eos=True))
        for prompt, n in zip(prompts, wanted, strict=True)
    ]


print("request        ", "  ".join("ABCDEFGH"))
print("prompt tokens  ", " ".join(f"{len(p):2}" for p in prompts))
print("answer tokens  ", " ".join(f"{n:2}" for n in wanted))

# %% [markdown]
# **Static batching** takes the first four, runs them until *all* are done, then takes the next four. Each letter below is a
# token for somebody, each dot a slot that ran for nobody.


# %%
def serve(batcher, asked):
    """Run all requests to their ends: those who got a token in each pass, and the engine's counters."""
    for request in asked:
        batcher.add(request)
    passes = []
    with costs.count(model) as work:
        while batcher.unfinished:
            served = batcher.step()
            passes.append([asked.index(request) for request in served])
    return passes, work


def chart(passes, slots):
    """One line for each slot, one character for each pass."""
    last = {who: i for i, served in enumerate(passes) for who in served}
    seats, lines = [None] * slots, [""] * slots
    for i, served in enumerate(passes):
        for who in served:
            if who not in seats:
                seats[seats.index(None)] = who
        for slot, who in enumerate(seats):
            lines[slot] += "·" if who is None else "ABCDEFGH"[who]
        seats = [None if who is None or last[who] == i else who for who in seats]
    return "\n".join(lines)


static_passes, static_work = serve(StaticBatcher(model, batch_size=4), requests())
print(chart(static_passes, slots=4))
print(len(static_passes), "forward passes")

# %%
predict(
    "04.idle",
    "Four slots in 44 passes are 176 **slot-steps**: chances to make a token. How many of them are dots?",
    unit="slot-steps",
)

# %%
made = sum(wanted)
slot_steps = 4 * len(static_passes)
predict.compare("04.idle", measured=slot_steps - made, unit="slot-steps")

# %% [markdown]
# A batch lasts as long as its longest answer, so the other slots run empty: **idle slots**. That is the first cost. There
# are two more.
#
# **Queueing.** E is a short question, and its first token comes in pass 25: not because E is difficult, and not because the
# machine is full (it has dots to spare), but because B is talkative. The wait from asking to the first token is called
# **time to first token**, TTFT. For a person in front of a screen it is the number that counts.
#
# **Padding.** A tensor is a rectangle, so the short prompts are filled up to the longest one (lesson 01), and the model
# computes the filling too:


# %%
def padding(lengths):
    return len(lengths) * max(lengths) - sum(lengths)


lengths = [len(p) for p in prompts]
in_front = padding(lengths[:4]) + padding(lengths[4:])
# Every token once; the last one of each answer is chosen, but never run.
needed = sum(lengths) + made - len(prompts)
print(f"tokens the model ran:         {static_work.tokens:4}")
print(f"  needed for the answers:     {needed:4}")
print(f"  padding of the prompts:     {in_front:4}")
print(f"  rows that were already done:{static_work.tokens - needed - in_front:4}")

# %% [markdown]
# More than half of the work was for nobody, and most of that came from idle slots, not from padding. Cleverer padding alone
# would not help much. What would?
#
# ### Padding done right (full track)
#
# Padding has a second price: somebody has to undo it. The engine fills up on the right and reads each row at its own last
# token, as you did in lesson 01. Many libraries fill up on the **left** instead. Then the last column is everybody's last
# token, which is convenient, and two things are wrong by default: the padding stands *before* the real tokens, so the
# causal mask of lesson 02 lets them look at it; and the first real token no longer stands at position 0.
#
# pico asks a cache where tokens stand (`begin`) and what they see (`attend`); so we can tell it anything, and compare the
# answer with the prompt run alone.


# %%
class Told:
    """Not a cache at all: it says which positions and which mask to use."""

    def __init__(self, positions, mask):
        self.positions, self.mask = positions, mask
        self.slots_written = self.slots_read = 0

    def begin(self, batch, new, lengths, device):
        return self.positions

    def attend(self, layer, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=True)

    def end(self):
        pass


prompt = prompts[0]  # 7 tokens, behind 11 tokens of padding
ids = torch.tensor([[0] * 11 + prompt])
columns = torch.arange(18)[None]
own_places = (columns - 11).clamp(min=0)
# (batch, heads, who looks, who is looked at); a 1 stands for "the same for all"
causal = torch.ones(18, 18).tril().bool()[None, None]
no_padding = (causal & (columns >= 11)) | torch.eye(18).bool()

with torch.inference_mode():
    alone = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    for name, positions, mask in (
        ("own positions, padding hidden", own_places, no_padding),
        ("own positions, padding seen", own_places, causal),
        ("columns as positions, padding hidden", columns, no_padding),
    ):
        padded = model(ids, cache=Told(positions, mask)).logits[0, -1].softmax(-1)
        print(f"{name:38} differs from the prompt alone by {0.5 * (padded - alone).abs().sum():.1%}")

# %% [markdown]
# (Half the sum of the differences of all probabilities: 0 % is the same, 100 % has nothing in common.)
#
# The mask is vital. The third line may surprise you: with wrong positions nothing happens! pico's rotary positions (lesson
# 02) only say how far *apart* two tokens stand, and all tokens of the row are shifted alike. Do not rely on it: a model
# that learns a vector for each position (GPT-2 does) reads nonsense then, the shift uses up context, and a block of keys
# that was computed at shifted positions can be reused for no other text (more about that below).
#
# ### Exercise 1 · `pad_left` (full track)
#
# Make the rectangle, the positions and the mask for prompts of different lengths:
#
# - `ids`, int64 (batch, longest): each prompt with `pad_id` *in front*, up to the longest.
# - `positions`, int64 (batch, longest): each row counts its own tokens from 0. Padding has position 0.
# - `mask`, bool (batch, longest, longest): `mask[row, i, j]` is True where token i may see token j: itself, and real tokens
#   before it. A padding token sees only itself. (If it saw nothing, softmax would divide 0 by 0.
#   Some attention code guards against that; elsewhere the result, "not a number", NaN, spreads to the row's real tokens, since
#   even 0 times NaN is NaN.)
#
# A prompt may hold `pad_id` as a real token. Useful: `cumsum(-1)`, `clamp(min=0)`, `torch.ones(n, n).tril()`,
# `torch.eye(n)`, `.bool()`, and `real[:, None, :]`, which turns (batch, longest) into (batch, 1, longest). Stuck?
# `hint("04.pad_left")`.


# %% nbgrader={"solution": true, "grade_id": "04-pad_left"}
def pad_left(prompts, pad_id):
    """Prompts (lists of ids) -> ids, positions (batch, longest), and mask (batch, longest, longest)."""
    ### BEGIN SOLUTION
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    first = torch.tensor([longest - len(prompt) for prompt in prompts])[:, None]
    place = torch.arange(longest)
    real = place >= first
    before = place[:, None] >= place
    mask = (before & real[:, None, :]) | (place[:, None] == place)
    return ids, (place - first).clamp(min=0), mask
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "04-pad_left-check", "points": 2} tags=["raises-exception"]
check("04.pad_left", pad_left)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_04 import pad_left as hidden

hidden(pad_left)
### END HIDDEN TESTS

# %% [markdown]
# ## ● Let them in and out at every step
#
# **Question: what if a free slot were filled at once?**
#
# Nothing in the model says that the rows of a batch have to begin together: every row is a text of its own. **Continuous
# batching** (also *iteration-level scheduling* or *in-flight batching*) decides anew before each pass who is in it. Same
# requests, same four slots:


# %%
def engine(slots, blocks=64, **settings):
    """The engine's continuous batcher, with memory for 64 blocks of 16 tokens."""
    scheduler = Scheduler(BlockPool(blocks), max_num_seqs=slots, **settings)
    return EngineBatcher(model, PagedCache(config, blocks), scheduler)


asked = requests()
passes, work = serve(engine(4), asked)
print(chart(passes, slots=4))
print()
print("                    static   continuous")
print(f"forward passes      {len(static_passes):6} {len(passes):12}")
print(f"idle slot-steps     {slot_steps - made:6} {4 * len(passes) - made:12}")
print(f"tokens processed    {static_work.tokens:6} {work.tokens:12}   (needed: {needed})")
for who in "EFGH":
    first = [
        next(i for i, served in enumerate(run, start=1) if "ABCDEFGH".index(who) in served)
        for run in (static_passes, passes)
    ]
    print(f"first token of {who}: pass {first[0]:4} {first[1]:12}")

# %% [markdown]
# Fewer passes, not one token too many, and E begins the moment A is done. The dots that are left are at the end, where
# nobody waits any more. The answers are the same, token for token:

# %%
endless = SamplingParams(temperature=0, ignore_eos=True)
same = [
    request.output == generate(model, request.prompt, max_tokens=n, params=endless)[len(request.prompt) :]
    for request, n in zip(asked, wanted, strict=True)
]
print(f"{sum(same)} of {len(same)} answers are those of the request run alone")

# %% [markdown]
# Where did the padding go? A continuous engine does not make a rectangle at all: it lays the tokens of all requests end to
# end in *one* row, and attention is told where each text begins and where its keys lie. So a prompt of 10 tokens and three
# texts that need one token each are a pass of 13 tokens, not of 4 × 10. Reading a prompt
# (*prefill*) and writing answers (*decode*) share one pass.

# %% [markdown]
# ## ● The picture to remember
#
# Change the lengths, the arrivals and the number of slots. What makes the gap between the first two charts large? Choose
# *equal lengths* from the menu: where is the gap now? (*Chunked prefill*, *computed again* and the blocks come further down.)

# %% id="04-batching"
explorers.batching()

# %% [markdown]
# ## The version you find on the web
#
# Tutorials show continuous batching in a dozen lines, more or less these. They look right. Read them once, and make up your
# mind what they will do.


# %%
class Job:
    def __init__(self, name, ids, tokens):
        self.name, self.ids, self.left = name, list(ids), tokens


class FoundBatcher:
    def __init__(self, model, max_batch_size=4):
        self.model = model
        self.max_batch_size = max_batch_size
        self.active_requests = []
        self.waiting_queue = []

    def add_request(self, request):
        self.waiting_queue.append(request)

    def step(self):
        for request in self.active_requests:
            logits = self.model(torch.tensor([request.ids])).logits
            request.ids.append(int(logits[0, -1].argmax()))
            request.left -= 1
            if request.left == 0:
                self.active_requests.remove(request)
                if self.waiting_queue:
                    self.active_requests.append(self.waiting_queue.pop(0))


def jobs():
    return [Job(name, prompt, n) for name, prompt, n in zip("ABCDEFGH", prompts, wanted, strict=True)]


found = FoundBatcher(model)
for job in jobs():
    found.add_request(job)
with costs.count(model) as work:
    for _ in range(100):
        found.step()
print(
    f"after 100 steps: {work.forward_calls} forward passes, {len(found.waiting_queue)} requests still waiting"
)

# %% [markdown]
# **Fault 1: nobody is let in at the start.** Somebody is let in only when somebody else is done, and nobody is ever
# running. We help by hand, put the first four in, and look at each step: who gets a token, in how many forward passes?

# %%
found = FoundBatcher(model)
all_jobs = jobs()
found.active_requests, found.waiting_queue = all_jobs[:4], all_jobs[4:]
print("step   in the batch before   got a token   forward passes")
for i in range(1, 9):
    before = {job.name: len(job.ids) for job in all_jobs}
    batch = "".join(job.name for job in found.active_requests)
    with costs.count(model) as work, torch.inference_mode():
        found.step()
    got = "".join(job.name for job in all_jobs if len(job.ids) > before[job.name])
    print(f"{i:4} {batch:>22} {got:>13} {work.forward_calls:16}")

# %% [markdown]
# **Fault 2: a forward pass for each request.** Four passes a step where one would do: the weights are read four times. The
# word *batch* is in the name, but nothing is batched; on the clock this is as slow as one after the other.
#
# **Fault 3: the list changes while the loop goes through it.** Look at step 4. A is done and is removed, so B, C and D move
# one place to the left, and the loop, which had done place 0, goes on with place 1: C. B is *skipped* and has to wait a
# step; in step 6 it is D, in step 8 F. Nothing crashes and the answers are right, so nobody notices: some requests just
# take longer, depending on who sits beside them. The same thing without a model:

# %%
numbers = [1, 2, 3, 4]
for n in numbers:
    if n < 4:
        numbers.remove(n)
print(numbers, "should be [4]")

# %% [markdown]
# ### The repaired version
#
# Three rules mend it: *let in, run once, take out*, each finished before the next begins. Here it is with the
# engine's parts, so that it is a true batcher with a KV cache. The scheduler keeps both queues and decides who runs
# (`schedule` lets in) and which of their tokens run: all of the prompt at first, then the newest. `retire` takes out. Where
# the keys and values of a request lie is written in its `table`; more about that below.


# %%
class RepairedBatcher:
    def __init__(self, model, slots, blocks=64):
        self.model = model
        self.cache = PagedCache(model.config, blocks)
        self.scheduler = Scheduler(BlockPool(blocks), max_num_seqs=slots)

    def add(self, request):
        self.scheduler.add(request)

    @property
    def unfinished(self):
        return self.scheduler.unfinished

    def step(self):
        parts = self.scheduler.schedule()  # who runs now, and which of their tokens
        row, ends = [], []
        for part in parts:
            row += part.request.span(part.start, part.start + part.count)  # end to end, no padding
            ends.append(len(row) - 1)
        self.cache.plan([Span(part.request.table, part.start, part.count) for part in parts])
        with torch.inference_mode():  # one pass, whoever is in it
            logits = self.model(torch.tensor([row]), cache=self.cache, at=torch.tensor(ends)).logits[0]
        for part, scores in zip(parts, logits, strict=True):
            request = part.request
            request.output.append(int(scores.argmax()))
            self.scheduler.complete(part)
            if len(request.output) == request.params.max_tokens:
                self.scheduler.retire(request)  # the list we go through is `parts`: nobody is skipped
        return [part.request for part in parts]


repaired = requests()
repaired_passes, work = serve(RepairedBatcher(model, slots=4), repaired)
print(chart(repaired_passes, slots=4))
print(f"{work.forward_calls} forward passes, the engine's own batcher needed {len(passes)}")
print("same answers:", [r.output for r in repaired] == [r.output for r in asked])

# %% [markdown]
# (What the engine has besides: prompts in chunks, a memory that may run out, end tokens, stop texts, sampling. It is
# `lessonlib/engine/batching.py`, and you can read it now.)
#
# ### Exercise 2 · `ContinuousBatcher.step` (full track)
#
# Write the step of a small batcher without a KV cache, for the toy model of lesson 01, with `model(ids).logits`. Short rows
# are padded on the right. `add` and `batch` are given.
#
# 1. **Admit**: while there is room (`size`) and somebody waits, let in the one who has waited longest.
# 2. **One forward pass** for all that are in. With nobody in, return `{}` and do not call the model.
# 3. Everybody in it gets the likeliest token after their own last one. A request is **done** when it has `max_tokens` new
#    tokens or has just got `eos_id` (which belongs to the answer). Those who are done leave: **retire**.
# 4. **Admit** again, so that `batch()` tells who will be in the next pass.
# 5. Return the new tokens, `{name: token}`.
#
# You may add methods, and keep in `waiting` and `running` what you like. Stuck? `hint("04.ContinuousBatcher")`.


# %% nbgrader={"solution": true, "grade_id": "04-ContinuousBatcher"}
class ContinuousBatcher:
    """At most `size` requests share each forward pass; others wait in the order in which they came."""

    def __init__(self, model, size, eos_id):
        self.model, self.size, self.eos_id = model, size, eos_id
        self.waiting, self.running = [], []

    def add(self, name, prompt, max_tokens):
        self.waiting.append({"name": name, "ids": list(prompt), "left": max_tokens})

    def batch(self):
        """The names of those who will be in the next pass, as far as is known."""
        return [request["name"] for request in self.running]

    def step(self):
        """Admit, one forward pass, retire, admit; returns {name: new token} of all that ran."""
        ### BEGIN SOLUTION
        self._admit()
        if not self.running:
            return {}
        widest = max(len(request["ids"]) for request in self.running)
        rows = [request["ids"] + [0] * (widest - len(request["ids"])) for request in self.running]
        answers = self.model(torch.tensor(rows)).logits.argmax(-1)
        new = {r["name"]: int(row[len(r["ids"]) - 1]) for r, row in zip(self.running, answers, strict=True)}
        for request in self.running:
            request["ids"].append(new[request["name"]])
            request["left"] -= 1
        self.running = [r for r in self.running if r["left"] and new[r["name"]] != self.eos_id]
        self._admit()
        return new

    def _admit(self):
        while self.waiting and len(self.running) < self.size:
            self.running.append(self.waiting.pop(0))
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "04-ContinuousBatcher-check", "points": 4} tags=["raises-exception"]
check("04.ContinuousBatcher", ContinuousBatcher)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_04 import ContinuousBatcher as hidden

hidden(ContinuousBatcher)
### END HIDDEN TESTS

# %% [markdown]
# ## What people notice
#
# Eight requests that come at the same moment are a laboratory. At a server people come and go. Three numbers say how it is
# for them, and for whoever pays:
#
# | | | |
# |---|---|---|
# | **TTFT** | time to first token | from asking to the first token, queue included |
# | **TPOT** | time per output token | the mean gap between the tokens after that: how fast the text flows |
# | **throughput** | tokens a second | all tokens of all requests, divided by the whole time: what the machine earns |
#
# One number for many requests? A mean hides the unlucky: nine people who wait 0.1 s and one who waits 20 s wait "2.1 s on
# average", which happened to nobody. So one gives **percentiles**: the median (p50) is what half of them stay below, p95 is
# what 95 of 100 stay below.
#
# To look at many requests without waiting for them, the engine has a simulator: requests arrive, the *real* scheduler
# decides, and only the forward pass is replaced by a formula, here 5 ms for reading the weights and 0.1 ms for every token.
# Two hundred requests, one every 60 ms on average, prompts of 16 to 200 tokens, answers from 4 to 200:


# %%
def arrivals(gap, equal=False, requests=200):
    """Requests at random moments, on average `gap` seconds apart; equal: all have the same lengths."""
    luck = np.random.default_rng(0)
    clock, trace = 0.0, []
    for _ in range(requests):
        clock += luck.exponential(gap)
        prompt, answer = int(luck.integers(16, 200)), int(min(200, 4 + luck.exponential(36)))
        trace.append(Arrival(clock, 64, 40) if equal else Arrival(clock, prompt, answer))
    return trace


def compare(trace, slots=8):
    """Replay a trace both ways and print what people would notice."""
    pool = BlockPool(4096, enable_prefix_caching=False)
    seconds = trace[-1].time - trace[0].time
    print(f"asked for: {sum(arrival.output for arrival in trace) / seconds:.0f} tokens/s")
    for name, timeline in (
        ("static", replay_static(trace, slots)),
        ("continuous", replay(trace, Scheduler(pool, max_num_seqs=slots))),
    ):
        p50, p95 = (timeline.percentile("ttft", q) for q in (50, 95))
        tpot, idle = 1000 * timeline.percentile("tpot", 50), timeline.idle_slot_steps
        print(
            f"{name:10}  TTFT p50 {p50:5.2f} s  p95 {p95:5.2f} s   TPOT p50 {tpot:4.1f} ms"
            f"   {timeline.throughput:4.0f} tokens/s   idle slot-steps {idle:6,}"
        )


compare(arrivals(gap=0.06))

# %% [markdown]
# Static batching cannot keep up: it makes fewer tokens a second than people ask for, so the queue grows for as long as they
# come, and the TTFT is hardly anything but queue. Continuous batching keeps up, on the same machine. One number is *worse*,
# though: TPOT. A pass in which more slots are busy, and somebody else's prompt is read besides, takes longer for everybody
# in it.
#
# ### Exercise 3 · `latencies` (full track)
#
# Get the three numbers out of a server's log. It is a list of lines `[time, kind, name]` in order of time, in milliseconds:
#
# ```python
# log = [
#     [100, "arrives", "a"],
#     [140, "starts", "a"],    # its first forward pass begins
#     [150, "token", "a"],
#     [170, "token", "a"],
#     [180, "token", "a"],
# ]
# latencies(log, 50)   # {"ttft": 50.0, "tpot": 15.0, "throughput": 37.5}
# ```
#
# - `"ttft"`: the q-th percentile of all requests' times to first token, in ms.
# - `"tpot"`: the q-th percentile of their times per output token, in ms. A request with a single token has none and is left
#   out; if none is left, `None`.
# - `"throughput"`: all tokens, per *second*, from the first arrival to the last token.
#
# Every request in the log gets at least one token. Use `np.percentile(numbers, q)`: where the percentile falls between two
# values, it lies between them in proportion.


# %% nbgrader={"solution": true, "grade_id": "04-latencies"}
def latencies(log, q):
    """{"ttft": ms, "tpot": ms or None, "throughput": tokens a second} of a log of [ms, kind, name]."""
    ### BEGIN SOLUTION
    names = {name for _, _, name in log}
    arrived = {name: time for time, kind, name in log if kind == "arrives"}
    came_out = {name: [t for t, kind, who in log if kind == "token" and who == name] for name in names}
    ttft = [times[0] - arrived[name] for name, times in came_out.items()]
    tpot = [(times[-1] - times[0]) / (len(times) - 1) for times in came_out.values() if times[1:]]
    seconds = (max(t for times in came_out.values() for t in times) - min(arrived.values())) / 1000
    return {
        "ttft": float(np.percentile(ttft, q)),
        "tpot": float(np.percentile(tpot, q)) if tpot else None,
        "throughput": sum(map(len, came_out.values())) / seconds,
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "04-latencies-check", "points": 2} tags=["raises-exception"]
check("04.latencies", latencies)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_04 import latencies as hidden

hidden(latencies)
### END HIDDEN TESTS

# %% [markdown]
# ## ● When both are equal
#
# **Question: whose fault were the idle slots?**
#
# Not the static batcher's alone. Give all eight requests the same prompt and the same number of tokens:

# %%
alike = [prompts[0]] * 8, [10] * 8
for name, batcher in (("static", StaticBatcher(model, batch_size=4)), ("continuous", engine(4))):
    even_passes, work = serve(batcher, requests(*alike))
    print(f"{name:10} {len(even_passes)} passes, {work.tokens} tokens processed")
print(chart(even_passes, slots=4))

# %% [markdown]
# Exactly the same. Static batching is fine for a heap of work whose texts are equally long (classifying ten thousand
# reviews with one word each, say), or sorted by length. The gain of continuous batching comes from the *spread* of the lengths.
#
# And the spread of the arrivals. The next cell replays 200 requests in a simulation. (TTFT p50 is how long the typical request
# waits for its first token; p95 is exceeded by 5 in 100. TPOT is the time per token after that.) Equal lengths, but people come
# when they like; and mixed lengths with hardly anybody there:

# %%
print("equal lengths, one request every 60 ms")
compare(arrivals(gap=0.06, equal=True))
print("mixed lengths, one request a second")
compare(arrivals(gap=1.0))

# %% [markdown]
# With **equal lengths** both make about as many tokens a second, but in a static batch whoever comes a moment too late
# waits for the whole batch: that TTFT is queueing and nothing else. With **one request a second** the server is mostly
# alone with one of them, and the typical request gains nothing; only the unlucky, who come while another is served, notice
# a difference.
#
# ## Where continuous batching loses
#
# **A long prompt holds everybody up.** The more tokens in a pass, the longer it takes. Four people read along; then somebody
# pastes 1,800 tokens, and the scheduler puts them all into the next pass. The way out is to read the prompt in pieces,
# **chunked prefill**: at most so many tokens in one pass, those who are writing first.

# %%
print("tokens a pass    longest pause of the four    first token of the long one")
newcomer = [*[Arrival(0.0, 64, 60)] * 4, Arrival(0.1, 1800, 10)]
for budget in (4096, 256, 64):
    pool = BlockPool(4096, enable_prefix_caching=False)
    timeline = replay(newcomer, Scheduler(pool, max_num_seqs=8, max_num_batched_tokens=budget))
    pause = max(after - before for times in timeline.tokens[:4] for before, after in pairwise(times))
    print(f"{budget:13} {1000 * pause:25.0f} ms {1000 * timeline.ttft[4]:27.0f} ms")

# %% [markdown]
# Not a gift, but an exchange: the four flow smoothly, and the newcomer waits longer, since each piece pays for reading the
# weights again. (The menu of the picture above has this case: *a long prompt arrives*.)
#
# **Memory can run out.** A static batch takes the memory for its longest text when it begins. A continuous one lets people
# in hoping that there will be room when they grow. When there is none, somebody is thrown out (**preemption**), and their
# tokens are *computed again* later. Here pico has fewer and fewer blocks for eight requests that grow to 40 blocks
# together:

# %%
eight = [[*tokenizer.encode("def f(x):"), 10 + i] for i in range(8)]
long_answers = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
print("blocks   thrown out   tokens computed")
for blocks in (64, 24, 8):
    small = LLM("pico", num_kv_blocks=blocks, enable_prefix_caching=False)
    metrics = [out.metrics for out in small.generate(eight, long_answers)]
    thrown, computed = (sum(getattr(m, name) for m in metrics) for name in ("preemptions", "tokens_computed"))
    print(f"{blocks:6} {thrown:12} {computed:17}")

# %% [markdown]
# ## Paged memory
#
# **Question: where do the keys and values live, if nobody knows how long a text will be?**
#
# Lesson 02 reserved one long piece for each row, as long as the context. Requests that come and go at every step make this
# painful: each of them takes room for 2,048 tokens, though most will never need it. What fits into 256 MiB?

# %%
per_token = costs.kv_bytes_per_token(config, 4)  # pico at 32 bits
room = 256 * 2**20 // per_token
# Tokens that our eight requests hold at the end:
finals = [len(p) + n - 1 for p, n in zip(prompts, wanted, strict=True)]
print(f"one token takes {per_token:,} bytes; 256 MiB hold {room:,} tokens")
print("block size   reserved for our eight   of it empty   requests like these in 256 MiB")
for size in (1, 16, 128, 2048):
    pool = BlockPool(room // size, size)
    reserved = sum(pool.blocks_for(n) for n in finals) * size
    fit = len(finals) * pool.num_blocks // (reserved // size)
    print(f"{size:10} {reserved:24,} {1 - sum(finals) / reserved:13.0%} {fit:32,}")

# %% [markdown]
# **Blocks** of 16 tokens waste a few places at the end of each text, on average half a block; one piece for the whole
# context wastes nearly everything. Why not blocks of 1, then? Because each block is an entry in a table that attention has
# to look up, and a piece to be named and found again when it is shared: sixteen times as many for blocks of 1.
#
# The list of a text's blocks is its **block table**: token p lies in block `table[p // 16]`, at place `p % 16`. The blocks
# may lie anywhere. This is how operating systems give memory to programs (*paging*), and for keys and values it is called
# **PagedAttention** (Kwon et al. 2023). Play the events again, now through the eyes of somebody who has to write it: what does
# each event do to the count of a block's holders?

# %% id="04-paged-blocks"
explorers.paged_blocks()

# %% [markdown]
# ### Exercise 4 · `BlockAllocator` (full track)
#
# Write the part that hands out the blocks. Only numbers, no tensors: block b exists for 0 ≤ b < `num_blocks`, and
# `self.holders[b]` counts the tables it is in. Free means 0.
#
# - `grow(name, tokens)`: make the table of `name` long enough for `tokens` tokens *all together* (a new name begins with an
#   empty table) and return it as a list. Take free blocks, the lowest number first. If there are too few: `raise
#   MemoryError(...)`, and take none.
# - `share(new, old, tokens)`: the request `new` begins with the same `tokens` tokens as `old`. Its table begins with the
#   *same* blocks, but only those that are *full* of common tokens: into the last, half-full one each will write something
#   else. (Simpler than the picture: what is never shared half-full need not be copied.) Return the new table.
# - `release(name)`: the request is gone. A block that others hold stays theirs.


# %% nbgrader={"solution": true, "grade_id": "04-BlockAllocator"}
class BlockAllocator:
    """Blocks of `block_size` tokens, lent to requests; `tables[name]` lists the blocks of a request."""

    def __init__(self, num_blocks, block_size):
        self.block_size = block_size
        self.holders = [0] * num_blocks
        self.tables = {}

    def available(self):
        """How many blocks are free."""
        return self.holders.count(0)

    def grow(self, name, tokens):
        ### BEGIN SOLUTION
        table = self.tables.get(name, [])
        missing = max(0, (tokens + self.block_size - 1) // self.block_size - len(table))
        if missing > self.available():
            raise MemoryError(f"{missing} blocks are needed, and {self.available()} are free.")
        for _ in range(missing):
            block = self.holders.index(0)
            self.holders[block] += 1
            table = [*table, block]
        self.tables[name] = table
        return list(table)
        ### END SOLUTION

    def share(self, new, old, tokens):
        ### BEGIN SOLUTION
        common = self.tables[old][: tokens // self.block_size]
        for block in common:
            self.holders[block] += 1
        self.tables[new] = common
        return list(common)
        ### END SOLUTION

    def release(self, name):
        ### BEGIN SOLUTION
        for block in self.tables[name]:
            self.holders[block] -= 1
        del self.tables[name]
        ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "04-BlockAllocator-check", "points": 4} tags=["raises-exception"]
check("04.BlockAllocator", BlockAllocator)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_04 import BlockAllocator as hidden

hidden(BlockAllocator)
### END HIDDEN TESTS

# %% [markdown]
# ## Prefix reuse
#
# **Question: a thousand requests begin with the same instructions. Compute them a thousand times?**
#
# Keys and values of a token depend only on itself and the tokens *before* it (lesson 02). So two texts that begin alike
# have the same ones as far as they are alike, and a block that is full can be kept under a name made of everything up to
# its end, and found again by the next request. Even after its owner is gone: a free block keeps its content until somebody
# needs the place. Here are 200 common tokens and four short questions, one after the other.

# %%
rules = "# Write short functions. Give every function a docstring. No comments.\n"
instructions = tokenizer.encode(20 * rules)[:200]
questions = [
    instructions + tokenizer.encode(text) for text in ("def a(x):", "class B:", "import os", "for i in")
]
print("tokens of the four prompts:", [len(q) for q in questions])
predict(
    "04.prefix",
    "Blocks have 16 tokens. The second prompt shares its first 200 tokens with the first one. "
    "How many of them can be **reused**?",
    unit="tokens",
)

# %%
short_answer = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


def show(name, outputs):
    cached = [out.metrics.tokens_cached for out in outputs]
    print(f"{name:36} reused {cached!s:20} computed {sum(out.metrics.tokens_computed for out in outputs)}")


llm = LLM("pico", enable_prefix_caching=False)
without = [llm.generate([q], short_answer)[0] for q in questions]
show("without prefix caching", without)
llm = LLM("pico", enable_prefix_caching=True)
one_by_one = [llm.generate([q], short_answer)[0] for q in questions]
show("with it, one after the other", one_by_one)
texts = [[out.outputs[0].text for out in outs] for outs in (without, one_by_one)]
print("same answers:", texts[0] == texts[1])
predict.compare("04.prefix", measured=one_by_one[1].metrics.tokens_cached, unit="tokens")

# %% [markdown]
# 200 is twelve and a half blocks; the twelve full ones are shared. The rest of each prompt, and its answer, are computed.
# Now three ways to get nothing out of it:

# %%
llm = LLM("pico")
show("all four in the same pass", llm.generate(questions, short_answer))
llm = LLM("pico")
numbered = [[100 + i, *q] for i, q in enumerate(questions)]
show("a number in front of each", [llm.generate([q], short_answer)[0] for q in numbered])
in_turn = [questions[0], numbered[0], questions[1], numbered[0]]
for blocks in (64, 14):
    llm = LLM("pico", num_kv_blocks=blocks)
    show(f"two beginnings in turn, {blocks} blocks", [llm.generate([q], short_answer)[0] for q in in_turn])

# %% [markdown]
# - **In the same pass** nobody has finished computing what the others could reuse. It takes one who came before.
# - **One different token at the beginning** (a user's name, the time of day) changes the name of every block behind it. So
#   put what is common first, and what differs last.
# - **Small memory**: two prompts with different beginnings take turns. With 64 blocks both find theirs again; with 14 each
#   has to make way for the other before it comes back.
#
# There is a fourth catch: who gets a fast first token learns that *somebody* asked the same before. Lesson 07 makes an
# attack of it, and gives each user a `salt`.

# %% [markdown]
# ## What to be careful with
#
# - **Batching helps the server, not the single request.** Alone on the machine, nobody gets a faster answer by it.
# - **The simulator's clock is a formula.** It shows what scheduling does; what your machine does you have to measure
#   (lesson 06).
# - **Throughput and TTFT pull in opposite directions.** More slots: more tokens a second, and a slower flow for each. There
#   is no best setting, only one that fits what was promised to whom.
#
# ## Quiz

# %% nbgrader={"grade": true, "grade_id": "04-quiz", "points": 8}
quiz("04_batching")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("04_batching")
### END HIDDEN TESTS

# %% [markdown]
# ## ● What you should be able to say now
#
# - A pass reads the weights *once*, for however many rows: that is why batches pay, until computing becomes the limit.
# - A static batch costs *idle slots* (it lasts as long as its longest answer), *queueing* (newcomers wait for all of it)
#   and *padding*.
# - Continuous batching: admit, one forward pass, retire, admit. One pass for all, and no list that changes under the loop.
# - With equal lengths that begin together, both are the same. The gain comes from the spread of lengths and arrivals.
# - KV memory in blocks wastes half a block a text; full blocks with the same beginning are shared, and counted.
# - TTFT counts from the *arrival*, TPOT only the gaps after it; quote both in percentiles. Throughput is all tokens divided
#   by the whole time.
#
# **Next:** lesson 05, speculative decoding: if a pass for eight tokens costs far less than eight passes, could a *single*
# text use that? Where you stand: `lesson progress` in a terminal.
