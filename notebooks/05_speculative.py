# %% [markdown]
# # 05 · Speculative decoding
#
# **An evening:** 30 to 45 minutes to read, run and play, then the exercises. (Core track, the sections marked ●
# without their exercises: 7 minutes.)
#
# In lesson 04 many people shared one pass of the model. But what if there is only *you*, waiting for one answer? The
# tokens come one after the other, and no batch can change that. This lesson does something cheeky: a **small model
# guesses** the next few tokens, and the large one only checks the guesses, all of them in one pass. The text that
# comes out is *exactly* the large model's. You will see why that can be faster, prove that it is fair, and find out
# where it loses.

# %%
import torch
from lessonlib import LLM, SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.engine import DenseCache, costs, load_model, load_tokenizer

tokenizer = load_tokenizer("pico")
model, draft = load_model("pico"), load_model("pico-draft")
for name, m in (("pico", model), ("pico-draft", draft)):
    print(f"{name:10}  {m.config.num_hidden_layers:2} layers  {m.config.num_parameters:9,} parameters")

# %% [markdown]
# `pico-draft` is pico's small sibling: the same vocabulary, a sixth of the layers, and trained mostly to imitate what
# pico says. The large model, whose text we want, is called the **target**; the small one is the **draft model**.
#
# ## ● What does a pass cost?
#
# **Question: five tokens in one pass. How much more work is that than one?**
#
# With a KV cache (lesson 02) each step after the prompt, a *decode step*, runs one token. Suppose we already knew the
# next four tokens: we could run all five together, as we do with a prompt. To run tokens, a machine does two things:
# it *reads* the weights and the cache from memory, and it *computes* with them. Guess what happens to the reading.

# %%
predict(
    "05.bytes",
    "A pass over **5** tokens instead of 1, after the same text: how many times as many *bytes* are "
    "read and written?",
    choices=["about 1 time", "about 2 times", "5 times", "25 times"],
)

# %%
text = "import os\n\n\ndef read_lines(path):\n    with open(path) as file:\n        return"
prompt = torch.tensor([tokenizer.encode(text)])


def one_pass(n):
    """Run n more tokens behind the prompt, and count that pass alone."""
    cache = DenseCache(model.config, 1, 256)
    with torch.inference_mode():
        model(prompt, cache=cache)
        with costs.count(model) as work:
            model(torch.full((1, n), 9), cache=cache)
    return work


one = one_pass(1)
print("tokens      computed          moved   FLOPs a byte")
for n in (1, 2, 5, 9, 17):
    work = one_pass(n)
    computed, moved = work.flops / one.flops, work.bytes / one.bytes
    print(f"{n:6} {computed:8.2f} times {moved:8.3f} times {work.flops / work.bytes:10.1f}")
moved = one_pass(5).bytes / one.bytes
predict.compare("05.bytes", measured=f"about {moved:.0f} time", note=f"{moved:.4f} times, to be exact.")

# %% [markdown]
# The weights are read **once for a pass**, however many tokens go through; each token only adds its own keys and
# values. The *computing* grows with the tokens. So all depends on which of the two you wait for. One token at a time
# does half a FLOP (an addition or a multiplication) for each byte, and a modern processor could do ten (a laptop) to
# hundreds (a GPU) in the time that a byte takes to arrive. It waits for memory, and the computing of a few more tokens
# fits into the waiting.
#
# The picture shows it for a real model on a real chip, by the numbers of the data sheet. Take *batch* for the number
# of tokens in a pass. Move it from 1 to 6: does the time of a step change? Then look for the batch where computing
# takes over. (With long contexts it never does: each sequence brings a cache of its own that has to be read.)

# %% id="05-roofline"
explorers.roofline(batch=1, context=128)

# %% [markdown]
# (Batch counts *sequences*, which all have a cache of their own to be read. Five tokens of one sequence share theirs,
# so they are even cheaper.)
#
# And on your machine? pico is so small that it may fit into the processor's own memory. Much of what you wait for
# here is the *fixed price* of a pass: a few hundred calls into PyTorch, whatever is in them. The effect is similar, a
# few tokens more make the pass only a little longer; the reason is another one. **Your numbers will differ.**

# %% id="05-clock" tags=["nbval-ignore-output"]
from time import perf_counter

from lessonlib.engine import quantize_model


def milliseconds(model, n, tries=20):
    """The quickest of several passes over n tokens behind the prompt."""
    cache, took = DenseCache(model.config, 1, 256, model.dtype), []
    with torch.inference_mode():
        model(prompt, cache=cache)
        for _ in range(tries):
            begin = perf_counter()
            model(torch.full((1, n), 9), cache=cache)
            took.append(1000 * (perf_counter() - begin))
            cache.rewind(prompt.shape[1])
    return min(took)


versions = {
    "float32": model,
    "bfloat16": load_model("pico", "bfloat16"),
    "int4": quantize_model(load_model("pico", "bfloat16"), "int4"),
}
print("ms for a pass over     1       5      17 tokens")
for name, version in versions.items():
    print(f"{name:16}" + "".join(f"{milliseconds(version, n):8.2f}" for n in (1, 5, 17)))
print(f"{'pico-draft':16}{milliseconds(draft, 1):8.2f}")

# %% [markdown]
# Compare within a row: *how much* longer is a pass over 5 tokens? It differs with the format, because the **kernels**
# differ, the routines that do the multiplying. So *five for the price of one* is a fact about a model, a kernel and a
# machine, not a law. We come back to it.
#
# ## ● Guess, then check
#
# **Question: who tells us the next four tokens?**
#
# Nobody knows them, but somebody can guess. `pico-draft` writes four tokens, one after the other. Then pico runs
# **once** over the text and the guesses. Remember lesson 01: a pass gives logits at *every* position. So pico says,
# in one go, what it would have written behind the text, behind the first guess, behind the second … As long as it
# agrees, a guess stands.

# %%
ids = tokenizer.encode("for i in range(10):\n    print(")


def guess(text, k):
    """k tokens of the draft model, one after the other."""
    for _ in range(k):
        text = [*text, int(draft(torch.tensor([text])).logits[0, -1].argmax())]
    return text[-k:]


guesses = guess(ids, 4)
logits = model(torch.tensor([ids + guesses])).logits[0]  # one pass over text and guesses
own = logits[len(ids) - 1 :].argmax(-1).tolist()  # from the last token of the text on
for theirs, ours in zip([*guesses, None], own, strict=True):
    word = "none" if theirs is None else repr(tokenizer.tokens([theirs])[0])
    verdict = "" if theirs is None else "the same" if theirs == ours else "different"
    print(f"guess {word:6} pico itself {tokenizer.tokens([ours])[0]!r:6} {verdict}")

# %% [markdown]
# Read it from the top. Where both agree, the guess is *what pico would have written anyway*. At the first difference
# pico's own token goes in: it was computed from a text that is right up to there. What comes below is worthless,
# because pico read a wrong guess before it; that the fourth guess agrees again means nothing.
#
# And if *all* guesses stand? Then pico has also said what comes behind the last one: a **bonus token**, for nothing.
# So a pass brings **at least 1** token (pico's own) and **at most k + 1** for k guesses.
#
# ### The version you find on the web
#
# Many listings, the first version of this lesson among them, keep the guesses that agree and stop there. Watch it.


# %%
def from_the_web(text, k=4):
    guesses = guess(text, k)
    own = model(torch.tensor([text + guesses])).logits[0].argmax(-1).tolist()
    accepted = []
    for i, token in enumerate(guesses):
        if own[len(text) - 1 + i] != token:
            break
        accepted.append(token)
    return accepted


growing = ids
for turn in range(1, 6):
    new = from_the_web(growing)
    growing = growing + new
    print(f"pass {turn}: {len(new)} new tokens {tokenizer.tokens(new)}")

# %% [markdown]
# As soon as the first guess is wrong, nothing comes back, the next turn guesses the same again, and the loop runs for
# ever. pico's own token *was* in the logits; it was thrown away. (Some versions repair just that, and still throw
# away the bonus token of every fully accepted round.)
#
# ### Exercise 1 · `verify` (full track)
#
# Write it right: the new tokens that one pass brings. `text` and `drafts` are lists of ids, the drafts are the guesses;
# there may be none.
#
# - Run `model` **once**, on text and drafts as one row: `model(ids).logits`, without a cache.
# - Drafts stand as long as each equals the model's own choice (`argmax`) in its place.
# - Behind them comes one token of the model's own: in the place of the first wrong draft, or the bonus token.
# - Return the new tokens as a list of ints, without the text. Leave `text` and `drafts` unchanged.
#
# Stuck? Run `hint("05.verify")` in a cell of your own.


# %% nbgrader={"solution": true, "grade_id": "05-verify"}
def verify(model, text, drafts):
    """The drafts that stand and one token of the model's own: list of ids, list of ids -> list of ids."""
    ### BEGIN SOLUTION
    logits = model(torch.tensor([[*text, *drafts]])).logits[0]
    own = logits[len(text) - 1 :].argmax(-1).tolist()
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    return own[: stands + 1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "05-verify-check", "points": 3} tags=["raises-exception"]
check("05.verify", verify)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_05 import verify as hidden

hidden(verify)
### END HIDDEN TESTS

# %% [markdown]
# ## ● Count the passes
#
# **Question: 64 tokens. How many passes of pico does it take?**
#
# Without guesses: 64, one for each token (the first one reads the prompt). Now the engine does what you have just
# read, with caches for both models, and up to four guesses at a time (fewer where few have stood so far).

# %%
predict(
    "05.passes",
    "pico writes **64** tokens, with up to 4 guesses of pico-draft before each pass. How many passes "
    "does *pico* make?",
    unit="passes",
)

# %%
plain, speculative = LLM("pico"), LLM("pico", speculative_model="pico-draft", num_speculative_tokens=4)
stack = "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
greedy = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
small = speculative.batcher.speculator.model  # pico-draft, inside the engine
with costs.count(plain.model) as alone:
    wanted = plain.generate(stack, greedy)[0]
with costs.count(speculative.model) as checking, costs.count(small) as guessing:
    got = speculative.generate(stack, greedy)[0]

print("the same tokens:", got.outputs[0].token_ids == wanted.outputs[0].token_ids)
print(f"without drafts: {alone.forward_calls} passes of pico, {alone.bytes / 1e6:,.0f} MB moved")
print(f"with drafts:    {checking.forward_calls} passes of pico, {checking.bytes / 1e6:,.0f} MB moved")
print(f"           and  {guessing.forward_calls} passes of pico-draft, {guessing.bytes / 1e6:,.0f} MB moved")
print(f"drafts made: {got.metrics.drafted}, accepted: {got.metrics.accepted}")
predict.compare("05.passes", measured=checking.forward_calls, unit="passes")

# %% [markdown]
# The same 64 tokens, to the last one, in a fraction of the passes. The bill has two parts, though: fewer passes of
# the large model, and many of the small one. Add up the megabytes, and compare: *that* is the gain. If memory is what
# you wait for, it is also the time. Here is the clock of this machine. (Yours will differ. And it shows less than the
# table of passes promised: the engine has more to do than passes, and this is one run, not the quickest of twenty.)

# %% id="05-speed" tags=["nbval-ignore-output"]
for name, llm in (("without drafts", plain), ("with pico-draft", speculative)):
    begin = perf_counter()
    llm.generate(stack, greedy)
    print(f"{name:15} {64 / (perf_counter() - begin):6.0f} tokens/s")

# %% [markdown]
# Guesses can be as bad as they like: the text does not change, only the number of passes. *Bad guesses cost time, never
# quality.* (But for rounding: it depends a little on how many tokens a pass has, most of all in bfloat16, and two nearly
# equal tokens may swap.)
#
# ## When tokens are drawn
#
# **Question: at temperature 0.8 there is no *right* token. Which guesses may stand?**
#
# Comparing with `argmax` would be wrong now: it lets only the likeliest token through, and that is temperature 0
# again. What we want is stricter than "looks fine": **every token must come exactly as often as if pico had drawn it
# alone.**
#
# Both models have probabilities: call the target's **p** and the draft model's **q**. The draft is drawn from q.
# Where q likes a token *more* than p does, it comes too often, and some of its drafts have to go. So:
#
# 1. A draft x stands with probability **min(1, p(x) / q(x))**.
# 2. If it does not stand, a token of which p has *more* than q takes its place: drawn from **max(0, p − q)**, scaled
#    up to sum to 1. This is called the **residual**.
# 3. If all drafts stand, the bonus token is drawn from p.
#
# The picture runs this rule with pico and pico-draft. Step through the rounds: the diamond is the random number, and
# the draft stands if the diamond lies inside the bar. Below you see p and q at the place that decided the round.

# %% id="05-speculative"
explorers.speculative(model, draft, tokenizer=tokenizer)

# %% [markdown]
# ### Why this gives p, on three tokens
#
# | token | q | p | comes as a draft and stands, min(p, q) | still missing, p − that |
# |---|---|---|---|---|
# | A | 0.5 | 0.2 | 0.2 | 0 |
# | B | 0.3 | 0.3 | 0.3 | 0 |
# | C | 0.2 | 0.5 | 0.2 | **0.3** |
# | together | 1 | 1 | **0.7** | 0.3 |
#
# q proposes A half of the time, and it stands with 0.2 / 0.5: that makes 0.2 of all draws, exactly what p wants. In 3
# of 10 cases the draft goes, and what is missing is C, all 0.3 of it. Draw the replacement there, and the sums are p.
#
# So it is with any number of tokens. Token x comes as a standing draft in min(p, q) of all draws. Drafts go in
# 1 − Σ min(p, q) of them, which is Σ max(0, p − q): the very sum by which the residual is divided to sum to 1. So x gains
# exactly max(0, p − q), and min(p, q) + max(0, p − q) = p.
#
# **The mistake that looks right:** "the draft was refused, so let pico draw one itself, from p". Then A gets another
# 0.3 · 0.2 on top of the 0.2 it has already. Guess whether one would notice.

# %%
predict(
    "05.bias",
    "p and q of pico and pico-draft after `for line in`; the replacement is drawn from **p** instead of the "
    "residual. How many of 100 draws go to a token that has had its share already? (0: fair after all.)",
    unit="of 100",
)

# %% [markdown]
# ### The experiment
#
# Real distributions: what pico and pico-draft say after `for line in`, with `top_k=8` so that the tokens fit on a
# picture. We draw 200,000 times by each rule and measure the **total variation** from p: half the sum of all
# differences without their signs, which is the share of draws that went to the wrong token.

# %%
from lessonlib.engine.sampling import distribution

start = torch.tensor([tokenizer.encode("for line in")])
params = SamplingParams(temperature=1.0, top_k=8)
p, q = (distribution(m(start).logits[0, -1], params) for m in (model, draft))
N = 200_000
chance = torch.Generator().manual_seed(5)


def drawn(weights):
    return torch.multinomial(weights, N, replacement=True, generator=chance)


def judged(replacement):
    """N first tokens: a draft from q that stands with p / q, or else a draw from ``replacement``."""
    x = drawn(q)
    stands = torch.rand(N, generator=chance) < p[x] / q[x]
    return torch.where(stands, x, drawn(replacement)), stands


right, stands = judged((p - q).clamp_min(0))
wrong, _ = judged(p)
rules = {
    "pico alone, drawn from p": drawn(p),
    "accept with p/q, else from the residual": right,
    "accept with p/q, else from p": wrong,
    "accept every draft": drawn(q),
    "only the likeliest token (greedy match)": torch.full((N,), int(p.argmax())),
}
shares = {name: torch.bincount(x, minlength=len(p)) / N for name, x in rules.items()}
for name, share in shares.items():
    print(f"{name:40} total variation from p: {(share - p).abs().sum() / 2:.3f}")
print(f"drafts that stood: {stands.float().mean():.3f};  sum of min(p, q): {torch.minimum(p, q).sum():.3f}")
bias = float((shares["accept with p/q, else from p"] - p).abs().sum() / 2)
predict.compare("05.bias", measured=round(100 * bias), unit="of 100")

# %% [markdown]
# The first line is how far *luck alone* takes you from p with that many draws: the right rule is as good as pico
# itself. The mistake is dozens of times further off: in the picture, the tokens that q likes (`line`, `lines`) come
# too often, those that it neglects (`a`, `f`, `code`) too seldom. No single text shows it, and there is no error
# message. The other two rules give the draft model's text, and temperature 0.

# %%
import matplotlib.pyplot as plt

best = p.topk(8).indices
names = [tokenizer.tokens([i])[0] for i in best.tolist()]
bars = {
    "wanted: p": (p, "#999999", ""),
    "else from the residual": (shares["accept with p/q, else from the residual"], "#0072B2", "//"),
    "else from p": (shares["accept with p/q, else from p"], "#E69F00", ".."),
}
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for i, (name, (values, color, hatch)) in enumerate(bars.items()):
    places = [j + 0.27 * (i - 1) for j in range(len(names))]
    ax.bar(places, values[best], width=0.25, color=color, hatch=hatch, edgecolor="white", label=name)
ax.set_xticks(range(len(names)), names, family="DejaVu Sans Mono")
ax.set(ylabel="share of the draws", title="The first token after “for line in”, 200,000 draws by each rule")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The last printed line holds another fact: the share of drafts that stand is the **overlap** of p and q, the sum of
# min(p, q). The better the small model imitates the large one, the more stand. It need not be *clever*, only
# *similar*. (In `LLM`, a request with a *seed* of its own gets the very same tokens with drafts and without. The price
# of that promise: its drafts stand less often.)
#
# ### Exercise 2 · `accept` (full track)
#
# Write the rule for several drafts. `q` is a tensor (k, vocabulary): row i is what draft i was drawn from. `p` is
# (k + 1, vocabulary): the target's probabilities in the same places, and one row for behind the last draft.
#
# - Go through the drafts. Draft i stands with probability p / q, each with a random number of its own.
# - The first that does not stand ends the answer: a token drawn from max(0, p − q) of *its* row comes in its place.
# - If all stand (or there are none), one more token is drawn from the last row of p.
# - Return the tokens as a list of ints. Draw with `torch.rand(1, generator=generator)` and
#   `torch.multinomial(weights, 1, generator=generator)`, whose weights need not sum to 1. Leave `p`, `q` and `drafts`
#   unchanged.
#
# The check calls your function hundreds of times and looks at *how often* each answer comes.


# %% nbgrader={"solution": true, "grade_id": "05-accept"}
def accept(drafts, q, p, generator=None):
    """The drafts that stand and one token more: ids, (k, vocabulary), (k + 1, vocabulary) -> list of ids."""
    ### BEGIN SOLUTION
    for i, token in enumerate(drafts):
        if torch.rand(1, generator=generator) >= p[i, token] / q[i, token]:
            residual = (p[i] - q[i]).clamp_min(0)
            return [*drafts[:i], int(torch.multinomial(residual, 1, generator=generator))]
    return [*drafts, int(torch.multinomial(p[-1], 1, generator=generator))]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "05-accept-check", "points": 4} tags=["raises-exception"]
check("05.accept", accept)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_05 import accept as hidden

hidden(accept)
### END HIDDEN TESTS

# %% [markdown]
# ## How much faster?
#
# **Question: would eight guesses be better than four?**
#
# Say that each draft stands with probability **a**, the **acceptance**. Then the first draft brings a token with
# probability a. The second one only if the first stood as well: a². With k drafts, and the target's own token, which
# always comes:
#
# > **tokens a pass = 1 + a + a² + … + aᵏ**
#
# Each further draft brings less than the one before. But each costs the same: a pass of the draft model, **c** (as a
# part of a pass of the target over one token), and something to check it, **v**. With 1 for the
# target's own pass:
#
# > **speed-up = (1 + a + a² + … + aᵏ) / (1 + k · (c + v))**
#
# Here is the engine with 1 to 8 drafts, at temperature 0.8 on six prompts, counted. `record` runs it and keeps each
# round; c is the bytes of pico-draft's weights over those of pico's, and v is left out.

# %%
from lessonlib.engine.acceptance import Costs
from lessonlib.explorers.pictures.speculative import MORE_PROMPTS, counters, record

more = ("import os\n\n\ndef walk(top):\n", "def test_split():\n    assert ", "for key, value in ")
prompts = [tokenizer.encode(t) for t in (stack, *MORE_PROMPTS, *more)]


def run(draft, k, temperature=0.8):
    """Counters of 12 rounds after each prompt, all together."""
    return counters(
        [r for rounds in record(model, draft, prompts, k, temperature, rounds=12) for r in rounds]
    )


c = Costs.of(model, draft).draft
runs = {k: run(draft, k) for k in (1, 2, 4, 8)}
a = sum(r["accepted"] for r in runs.values()) / sum(r["judged"] for r in runs.values())
print(f"acceptance a = {a:.2f}, a draft costs c = {c:.2f} of a pass")
print(" k   tokens a pass        speed-up")
print("    counted  formula  counted  formula")
for k, r in runs.items():
    counted, formula = r["tokens"] / r["passes"], sum(a**i for i in range(k + 1))
    print(f"{k:2} {counted:8.2f} {formula:8.2f} {counted / (1 + k * c):8.2f} {formula / (1 + k * c):8.2f}")

# %% [markdown]
# Counted and formula come close, k = 8 excepted: each row is only 72 passes, and every k wrote its own text. The *speed-up* of the formula
# rises, has one top, and falls: with eight drafts you pay for eight, and the last ones hardly ever count. Play with
# it on the second page (*when it pays*) of the picture with the diamonds.
#
# Two things to be careful with. The acceptance counts drafts that were **judged**: what stands behind the first
# rejected one was never looked at. And "each draft stands with the same probability" is a simplification: in easy
# places (`self.`) almost all drafts stand, in hard ones hardly any, so accepted drafts come in runs. (That may be why
# eight drafts brought more here than the formula says.)
#
# ### Exercise 3 · `estimate` (full track)
#
# Return two numbers, `(tokens, speedup)`, from the two formulas above: the mean tokens of a pass and the speed-up.
# `acceptance` may be 0 or 1, and `k` may be 0.


# %% nbgrader={"solution": true, "grade_id": "05-estimate"}
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    """Mean tokens for each pass with k drafts, and how many times faster that is than none: two floats."""
    ### BEGIN SOLUTION
    tokens = sum(acceptance**i for i in range(k + 1))
    return tokens, tokens / (1 + k * (draft_cost + verify_cost))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "05-estimate-check", "points": 2} tags=["raises-exception"]
check("05.estimate", estimate)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_05 import estimate as hidden

hidden(estimate)
### END HIDDEN TESTS

# %% [markdown]
# ## Drafts for nothing: n-grams
#
# **Question: must it be a *model* that guesses?**
#
# Code repeats itself: a name that came once comes again, and often with the same words behind it. So look where the
# latest few tokens stood before, and guess what followed them there. A run of n tokens is called an **n-gram**; the
# method is also known as **prompt lookup**. It costs next to nothing, c = 0.


# %%
def look_up(text, n=2, count=4):
    """What followed the last time that the text read as it does now; nothing if it never did."""
    for at in range(len(text) - n - 1, -1, -1):
        if text[at : at + n] == text[-n:]:
            return text[at + n : at + n + count]
    return []


code = """class Inventory:
    def __init__(self, items=()):
        self.items = dict(items)

    def add(self, name, count=1):
        if count < 1:
            raise ValueError("count must be positive")
        self.items[name] = self.items.get(name, 0) + count

    def remove(self, name, count=1):
        if self.items.get(name, 0) < count:
            raise KeyError(name)
        self.items[name] -= count
        if not self.items[name]:
            del self.items[name]
"""
beginning = tokenizer.encode(code[: code.index(" count=1):", 200)])
print("text:  …", tokenizer.tokens(beginning[-6:]))
print("guess:  ", tokenizer.tokens(look_up(beginning)))

# %% [markdown]
# It has found the other method with the same arguments. (A guess that was looked up was not drawn from anything: it was
# certain, so its q is 1. It stands with probability p / 1, and the residual is p without it.) Now go through whole texts, written by people, and ask at
# each token: was something found, and was it right?

# %%
from lessonlib.engine.speculative import NgramIndex

prose = """Speculation does not change what is written. It changes when the work is done: a cheap
helper runs ahead, and the expensive reader follows with long steps. Where the helper is often wrong,
the reader stands still and the helper's time is lost. Nobody has found a way to know beforehand which
of the two it will be."""


def hits(text):
    """For each place in a text: None where no n-gram was found, else whether its guess was right."""
    ids, index, found = tokenizer.encode(text), NgramIndex(max_n=4, min_n=2), []
    for token in ids:
        ahead = index.continuation(1)
        found.append(ahead[0] == token if ahead else None)
        index.extend([token])
    return found


written = plain.generate(stack, SamplingParams(temperature=0, max_tokens=96, ignore_eos=True))[0]
texts = {"the code above": code, "prose": prose, "what pico writes, greedily": written.outputs[0].text}
for name, example in texts.items():
    places = hits(example)
    found = [right for right in places if right is not None]
    print(f"{name:27} {len(places):4} tokens: {len(found):3} guesses, {sum(found):3} of them right")

# %% [markdown]
# In this code, about every fourth token can be had for nothing; in prose almost none. The last row is a warning:
# greedy pico runs in circles (lesson 01), and whoever repeats himself is easy to guess. *The n-gram results of a
# small greedy model say little about a large one.* Where n-grams shine is work that copies: editing a file, quoting a
# document, filling in a form.
#
# In the engine it is `LLM("pico", speculative_model="ngram")`.
#
# ## ● Where it loses
#
# **1. A bad draft model, or an expensive one.** Three draft models for pico: one with random weights, pico-draft, and *pico
# itself*, who is always right.

# %%
from lessonlib.engine import Transformer

torch.manual_seed(0)
clueless = Transformer(draft.config)  # pico-draft's shape, never trained
print("draft model    accepted   tokens a pass   draft costs   speed-up")
for name, helper in (("random weights", clueless), ("pico-draft", draft), ("pico itself", model)):
    r = runs[4] if helper is draft else run(helper, k=4)
    price = Costs.of(model, helper).draft
    brought = r["tokens"] / r["passes"]
    rate, speed = r["accepted"] / r["judged"], brought / (1 + 4 * price)
    print(f"{name:14} {rate:8.0%} {brought:15.2f} {price:13.2f} {speed:10.2f}")

# %% [markdown]
# The clueless one wastes its passes: slower than no drafts at all. The perfect one is as expensive as the target: five
# tokens for the price of five. A draft model must be *similar and cheap at once*, and the two pull in opposite
# directions.
#
# **2. A busy server.** Speculation spends computing that nobody used. With many sequences in a batch there is none
# left. On paper, by data sheets: Llama-3.1-8B, each sequence with 250 tokens of context, 4 drafts with acceptance
# 0.7, the draft model itself taken as free; on an H100, a GPU for data centres, and on a laptop's processor.

# %%
from lessonlib.explorers.pictures.kv_cache import PRESETS
from lessonlib.explorers.pictures.roofline import CHIPS

llama = PRESETS["Llama-3.1-8B"]
step = costs.predict(llama, 249, 2, bytes_per_number=2).steps[-1]  # one sequence, one token


def seconds(chip, batch, tokens):
    """A pass over so many tokens of each sequence: whatever is slower, computing or reading."""
    moved = costs.weight_bytes(llama) + batch * (step.kv_bytes_read + tokens * step.kv_bytes_written)
    return max(batch * tokens * step.flops / chip.flops, moved / chip.bandwidth)


chips = [CHIPS["H100 SXM"], CHIPS["Laptop CPU, DDR5"]]
brought = sum(0.7**i for i in range(5))
print("            speed-up on")
print("sequences   an H100   a laptop")
for batch in (1, 2, 4, 8, 64, 128, 256, 512):
    speedups = [brought * seconds(chip, batch, 1) / seconds(chip, batch, 5) for chip in chips]
    print(f"{batch:9} {speedups[0]:9.2f} {speedups[1]:10.2f}")

# %% [markdown]
# At some size of the batch the same drafts that nearly tripled the speed make it *slower*: on the H100 in the
# hundreds, on a laptop with 8. (With long contexts it is later: then a pass waits for the caches.) Some
# servers therefore switch speculation off under load. Our engine decides for each request, by what its drafts have
# brought so far; it does not look at load.
#
# ### Two more (full track)
#
# **3. A high temperature?** One reads that speculation fails there. Let us look at the code text from above, with the
# chance that a guess stands averaged over all its places: for drafts drawn from pico-draft, that is the overlap of p
# and q; for a guess that is certain (an n-gram, or the draft model's favourite), q is 1 and it is p of that guess.

# %%
ids = torch.tensor([tokenizer.encode(code)])
with torch.inference_mode():
    target_logits, draft_logits = model(ids).logits[0], draft(ids).logits[0]
favourite = draft_logits.argmax(-1, keepdim=True)
print("temperature   drawn from pico-draft   pico-draft's favourite")
for temperature in (0.01, 0.5, 1.0, 1.5, 2.0, 3.0):
    params = SamplingParams(temperature=temperature)
    p, q = distribution(target_logits, params), distribution(draft_logits, params)
    drawn_stands, fixed_stands = torch.minimum(p, q).sum(-1).mean(), p.gather(-1, favourite).mean()
    print(f"{temperature:11} {drawn_stands:19.2f} {fixed_stands:23.2f}")

# %% [markdown]
# A fixed guess collapses: when anything can come, nobody can foretell it. But drafts *drawn* at the same temperature
# hold up, because the draft model gets as unsure as the target, in the same way. That is what the p / q rule buys.
# (pico-draft was trained to imitate pico's *probabilities*, not only its favourites; one that was not would suffer
# more. And text at temperature 3 is rubbish, however fast it comes.)
#
# **4. Kernels, and fast targets.** In our benchmarks (`benchmarks/README.md` in the course's repository, table
# *speculative*) pico-draft clearly speeds up pico in bfloat16. In int4 it gains next to nothing on
# that machine: more tokens cost more there. And with our compiled int8 path (the whole pass as one piece of machine
# code) it gains nothing at all: a pass of pico has become so quick that the draft model is expensive beside it. *The faster the target, the harder it is to help.*
#
# ### Exercise 4 · `choose_k` (full track)
#
# You have a log of rounds and two prices. How many drafts should the next rounds have?
#
# - `rounds`: pairs (drafted, accepted). The acceptance is all *accepted* drafts over all *judged* ones: those that
#   stood, and the first rejected one of a round, if there is one.
# - `draft_cost` and `verify_cost`: c and v from above. Try every k from 1 to `limit` (included).
# - Return the k with the largest speed-up, or **0** if none is faster than decoding without drafts.
#
# (In every log something was judged, and there are no ties.)


# %% nbgrader={"solution": true, "grade_id": "05-choose_k"}
def choose_k(rounds, draft_cost, verify_cost, limit):
    """The number of drafts that pays most, from 0 to limit: an int."""
    ### BEGIN SOLUTION
    accepted = sum(stood for _, stood in rounds)
    judged = sum(min(stood + 1, drafted) for drafted, stood in rounds)
    acceptance = accepted / judged
    best, fastest, tokens = 0, 1.0, 1.0
    for k in range(1, limit + 1):
        tokens += acceptance**k
        speed = tokens / (1 + k * (draft_cost + verify_cost))
        if speed > fastest:
            best, fastest = k, speed
    return best
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "05-choose_k-check", "points": 3} tags=["raises-exception"]
check("05.choose_k", choose_k)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_05 import choose_k as hidden

hidden(choose_k)
### END HIDDEN TESTS

# %% [markdown]
# ## What to be careful with
#
# - **Quote speed-ups with their conditions.** Model pair, kind of text, temperature, batch and kernel all decide; "2
#   to 3 times" without them says nothing.
# - **It shortens the time of the answer, not the wait for its first token.** The prompt has to be read as before, by two models
#   now.
# - **It needs memory.** The draft model's weights, and a KV cache for it as well.
# - **Both models must share a vocabulary.** The ids that one proposes, the other has to judge.
#
# ## Quiz

# %% nbgrader={"grade": true, "grade_id": "05-quiz", "points": 6}
quiz("05_speculative")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("05_speculative")
### END HIDDEN TESTS

# %% [markdown]
# ## ● What you should be able to say now
#
# - A pass reads the weights once, however many tokens go through. Where you wait for memory (or for a pass's fixed
#   price), checking k guesses costs about one pass; where you wait for computing, or for a slow kernel, it does not.
# - A pass brings the accepted drafts **and one token of the target's own**: its correction, or the bonus.
# - Drawn drafts stand with min(1, p / q), and a rejected one is replaced from max(0, p − q). The output follows p
#   exactly; drawing the replacement from p would be biased.
# - With acceptance a, k drafts bring 1 + a + … + aᵏ tokens a pass and cost k draft passes: there is a best k,
#   sometimes 0.
# - It loses with a draft model that is unlike the target or expensive, with looked-up guesses at high temperature, in
#   large batches, and with kernels for which more tokens are not free.
#
# **Next:** lesson 06, deployment: where should a model run, and what does that cost?
