# %% [markdown]
# # 01 · One token at a time
#
# **An evening:** 30 to 45 minutes to read, run and play, then the exercises. (Core track, the sections marked ●
# without their exercises: 6 minutes.)
#
# A model that writes does one thing over and over: it reads a text and proposes *one* next piece. In this lesson you open
# up a single proposal, choose from it the way real engines do, put it in a loop, and find out why the loop, done the
# obvious way, gets slower with every word it writes.

# %%
import torch
from lessonlib import LLM, SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.engine import costs, load_model, load_tokenizer

tokenizer = load_tokenizer("pico")
model = load_model("pico")
print(f"pico: {model.config.num_parameters:,} parameters, {tokenizer.vocab_size:,} tokens in its vocabulary")

# %% [markdown]
# ## ● Text becomes tokens
#
# **Question: what does the model see when you type `def`?**
#
# Not letters, and not words. A **tokenizer** cuts the text into **tokens**, pieces from a fixed list called the
# **vocabulary**, and replaces each with its place in that list, its **id**. pico's list was built by counting which
# pieces are frequent in Python code (the method is called *byte-pair encoding*, BPE). So `return` is one token, and your
# surname is probably cut into several.
#
# Type something. Try your name, four spaces against one, an emoji. In the picture `·` is a space and `↵` the end of a
# line; a letter for which there is no piece is cut into **bytes**, shown like `⟨c3⟩`.

# %% id="01-tokenizer"
explorers.tokenizer(tokenizer, "def fib(n):\n    return fib(n - 1) + fib(n - 2)")

# %% [markdown]
# A space usually belongs to the token *after* it: `·return` with its space is one token, `return` without is another.
# Four spaces at the start of a line split likewise: three stick to the line end before, the fourth to the word after it.
# Nothing is lost on the way: the ids turn back into exactly the same text.

# %%
ids = tokenizer.encode("def fib(n):")
print("ids:   ", ids)
print("tokens:", tokenizer.tokens(ids))
print("text:  ", tokenizer.decode(ids))

# %% [markdown]
# ## ● One forward pass
#
# **Question: what comes out of the model?**
#
# Running the model once is called a **forward pass**. Ids go in. Out comes, *for every position*, one number for *every
# token of the vocabulary*: how well that token would fit as the next one. Such a number is called a **logit**. It can be
# negative, and it means nothing by itself; only compared with the other logits does it say something.

# %%
batch = torch.tensor([ids])  # texts run together are a batch; this is a batch of one
logits = model(batch).logits
print("in: ", tuple(batch.shape), "  (texts, tokens)")
print("out:", tuple(logits.shape), "  (texts, tokens, vocabulary)")

# %% [markdown]
# To continue the text we need only the last position: what comes after everything we have. **Softmax** turns its logits
# into probabilities: take e to the power of each, then divide by the sum, so that all of them are positive and add up to 1.

# %%
probabilities = logits[0, -1].softmax(-1)
top = probabilities.topk(5)
for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True):
    print(f"{p:6.1%}  {tokenizer.decode([i])!r}")

# %% [markdown]
# The picture shows the same for every position of the prompt: the shapes on the way, and the ten likeliest next tokens
# after the position you choose. (You need not know yet what happens in the two middle boxes.)

# %% id="01-forward"
explorers.next_token(model, tokenizer, "import os\n\n\ndef read_text(path):\n    with open(")

# %% [markdown]
# ## ● From probabilities to one token
#
# **Question: why not always take the likeliest?**
#
# One can. It is called **greedy** decoding, and for a few tokens it works well. Here are sixty.

# %%
llm = LLM("pico")
start = "class Stack:\n    def __init__(self):"
print(start + llm.generate(start, SamplingParams(temperature=0, max_tokens=60))[0].outputs[0].text)

# %% [markdown]
# It runs in circles: what it has written once becomes likely, so it writes it again. (Large models do this less, but they
# do it.) The cure is to *draw* the next token by its probability, with some control over how daring the draw is:
#
# - **temperature** divides the logits before softmax. Below 1 the likely become likelier; above 1 everything evens out;
#   0 is a name for greedy.
# - **top-k** keeps the k likeliest tokens and forgets the rest.
# - **top-p** keeps the smallest set of likeliest tokens whose probabilities reach p. Sure of itself, the model keeps a few;
#   unsure, it keeps many.
# - **min-p** keeps the tokens that are at least that fraction as likely as the likeliest one.
#
# Move the sliders on a real distribution: pico's, after `for i in range(`.

# %% id="01-sampling"
explorers.sampling(model, tokenizer, "for i in range(", top_p=0.5)

# %% [markdown]
# The order matters, because each step works on what the one before left, scaled up again so that it sums to 1. Here it is
# temperature, top-k, top-p, min-p. Not every engine keeps to it (llama.cpp applies the temperature last), so the same
# settings can mean different things elsewhere.
#
# Same prompt, drawn this time:

# %%
for temperature in (0.5, 1.0, 1.5):
    params = SamplingParams(temperature=temperature, top_p=0.95, max_tokens=24, seed=7)
    print(f"--- temperature {temperature}")
    print(start + llm.generate(start, params)[0].outputs[0].text)

# %% [markdown]
# ### Exercise 1 · `sample` (full track)
#
# Write the function that turns logits into tokens. It gets logits for several texts at once, shape `(batch, vocabulary)`,
# and returns one id for each, shape `(batch,)`.
#
# 1. `temperature == 0`: the id of the largest logit (`argmax`).
# 2. Otherwise divide the logits by the temperature.
# 3. `top_k > 0`: all but the k largest get the logit `-inf` (softmax makes that 0). A k larger than the vocabulary keeps
#    all.
# 4. `top_p < 1`: look at the probabilities of what is left from the likeliest down; keep tokens until their sum *reaches*
#    `top_p`. The one that crosses the line is kept, so at least one always stays.
# 5. Draw with `torch.multinomial(probabilities, 1, generator=generator)`. The `generator` is the source of chance: the same
#    one, set to the same seed, gives the same tokens.
#
# Leave `logits` itself unchanged. A loop over the rows is fine. Useful: `logits.topk(k).values`, `p.sort(descending=True)`
# (gives the sorted values *and* where they came from), `p.cumsum(-1)` (running sums), `row[i] = -torch.inf`.
#
# Stuck? Run `hint("01.sample")` in a cell of your own (the **+** above makes one).


# %% nbgrader={"solution": true, "grade_id": "01-sample"}
def sample(logits, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    """One token id for each row of logits (batch, vocabulary) -> int64 (batch,)."""
    ### BEGIN SOLUTION
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits / temperature
    if 0 < top_k < scaled.shape[-1]:
        smallest_kept = scaled.topk(top_k, dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < smallest_kept, -torch.inf)
    if top_p < 1:
        ranked, order = scaled.softmax(-1).sort(dim=-1, descending=True)
        reached_before = ranked.cumsum(-1) - ranked >= top_p
        unneeded = torch.zeros_like(reached_before).scatter(-1, order, reached_before)
        scaled = scaled.masked_fill(unneeded, -torch.inf)
    return torch.multinomial(scaled.softmax(-1), 1, generator=generator)[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "01-sample-check", "points": 3} tags=["raises-exception"]
check("01.sample", sample)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_01 import sample as hidden

hidden(sample)
### END HIDDEN TESTS

# %% [markdown]
# ## ● The loop
#
# **Question: how does one token become a text?**
#
# By doing it again with the longer text. A model that feeds on its own output is called **autoregressive**. The whole
# loop is four lines; watch it work.

# %%
text = tokenizer.encode("def count(items):\n    return")
for step in range(7):
    logits = model(torch.tensor([text])).logits  # run everything written so far …
    new = int(logits[0, -1].argmax())  # … choose one token from the last position …
    text = [*text, new]  # … append it, and start over
    print(f"step {step + 1}: ran {len(text) - 1:2} tokens, chose {tokenizer.tokens([new])[0]!r}")
print(tokenizer.decode(text))

# %% [markdown]
# Two things are missing before this can be called an engine.
#
# **It must know when to stop.** Look at step 6: pico chose `<|im_end|>`, which means *I have finished*, and our loop went on
# all the same. A token like that is called **end of sequence**, `eos`. pico has two: `<|endoftext|>` (id 0) closes a file,
# `<|im_end|>` (id 2) an answer in a chat; decoding leaves them out. When the model chooses one, the text is done. A text
# also ends when it has as many new tokens as you asked for, or when the model's **context** (the longest text it can read;
# 2,048 tokens for pico) is full.
#
# **It must handle several texts.** Here is how that usually goes wrong. The version found all over the web asks
# `if next_token == eos_id: break`. That is written for one text; give it two.

# %%
next_tokens = torch.tensor([17, 0])  # what two texts chose in the same step; 0 is an end token
try:
    if next_tokens == 0:
        print("stop")
except RuntimeError as error:
    print("RuntimeError:", error)

# %% [markdown]
# Nor is `any()` or `all()` the answer: with `any()` one finished text cuts off the others, with `all()` a finished text
# goes on talking. Each row has to stop by itself.
#
# **The texts differ in length**, and a tensor is a rectangle. So short rows are filled up on the right (**padding**, here
# shown as ·):
#
# | | | | | | |
# |---|---|---|---|---|---|
# | row 0 | `def` | ` f` | `ib` | `(` | **`n`** |
# | row 1 | `import` | **` os`** | · | · | · |
#
# The model computes every position from its own token and those *before* it, so padding on the right cannot disturb the real tokens. But
# the last column is no longer everybody's last token: the logits of a row must be read at **its own last real position**,
# the bold ones.

# %% [markdown]
# ### Exercise 2 · `generate` (full track)
#
# Write the greedy loop for a list of prompts of *different lengths* (none is empty, none fills the context already).
#
# - `model(ids).logits` as above; `model.config.max_position_embeddings` is the context.
# - Each row ends with `eos_id` (which is part of the result; here there is just one), after `max_tokens` new tokens, or when
#   prompt and new tokens fill the context, whichever comes first.
# - Return prompt + new tokens, one list of ids for each prompt. Leave the prompts you were given unchanged.
#
# Padding all rows into one batch is one way; running the rows one after the other is another. Both are right, with one
# forward pass for each new token at most and none after the last one.


# %% nbgrader={"solution": true, "grade_id": "01-generate"}
def generate(model, prompts, max_tokens, eos_id):
    """Greedy continuation of every prompt: list of lists of ids -> list of lists of ids, prompt included."""
    ### BEGIN SOLUTION
    rows = [list(prompt) for prompt in prompts]
    context = model.config.max_position_embeddings
    for _made in range(max_tokens):
        unfinished = [
            row
            for row, prompt in zip(rows, prompts, strict=True)
            if len(row) < context and (len(row) == len(prompt) or row[-1] != eos_id)
        ]
        if not unfinished:
            break
        longest = max(len(row) for row in unfinished)
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in unfinished])
        all_logits = model(padded).logits
        for row, row_logits in zip(unfinished, all_logits, strict=True):
            row.append(int(row_logits[len(row) - 1].argmax()))
    return rows
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "01-generate-check", "points": 4} tags=["raises-exception"]
check("01.generate", generate)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_01 import generate as hidden

hidden(generate)
### END HIDDEN TESTS

# %% [markdown]
# ## ● What does it cost?
#
# **Question: twice the text. How much more work?**
#
# Look at the steps above once more: *ran 7 tokens, ran 8, ran 9 …* Each step runs the **whole** text through the model
# although all of it but one token was run before. One could keep the results and use them again. Kept results are called a
# **cache**; what we have is a loop *without a cache*.
#
# Before you count, guess.

# %%
prompt = tokenizer.encode("import os\n\ndef")
print(len(prompt), "tokens:", tokenizer.tokens(prompt))
predict(
    "01.tokens",
    "We generate **64** new tokens after this prompt without a cache. How many tokens go through the model, all steps "
    "together?",
    unit="tokens",
)

# %%
predict(
    "01.doubling",
    "And for **128** new tokens instead of 64: *about* how many times as much?",
    choices=["2 times", "3 times", "4 times", "8 times"],
)

# %% [markdown]
# Locked? Now measure. The engine has counters: `costs.count(model)` notes every forward pass and how many tokens went in.
# `use_cache=False` is the loop from above; `ignore_eos` makes it write to the end, so that we compare equal lengths.

# %%
from lessonlib.engine import generate as engine_generate  # the engine's own loop: your version keeps its name

endless = SamplingParams(temperature=0, ignore_eos=True)
works = {}
for n in (64, 128):
    with costs.count(model) as works[n]:
        engine_generate(model, prompt, max_tokens=n, use_cache=False, params=endless)
    print(
        f"{n:4} new tokens: {works[n].forward_calls:4} forward passes, {works[n].tokens:6,} tokens processed"
    )

predict.compare("01.tokens", measured=works[64].tokens, unit="tokens")
ratio = works[128].tokens / works[64].tokens
predict.compare(
    "01.doubling", measured=f"{ratio:.0f} times", note=f"Measured: {ratio:.2f} times as many tokens."
)

# %% [markdown]
# Twice the new tokens, almost four times the work. The count is a staircase: 5 + 6 + 7 + … With P prompt tokens and N new ones,
#
# > P + (P + 1) + … + (P + N − 1) = N × P + N × (N − 1) / 2
#
# For large N the second part rules, and it grows with N · N: **quadratic** cost. Each bar below is one step; the area is
# the total.

# %%
import matplotlib.pyplot as plt

with costs.count(model) as cached:
    engine_generate(model, prompt, max_tokens=128, use_cache=True, params=endless)

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
steps = range(1, 129)
again = [step.tokens for step in works[128].steps]
once = [step.tokens for step in cached.steps]
ax.bar(steps, again, width=1, color="#E69F00", label=f"without a cache: {sum(again):,} tokens")
ax.bar(steps, once, width=1, color="#0072B2", hatch="//", label=f"with a cache: {sum(once):,} tokens")
ax.set(xlabel="step", ylabel="tokens processed", title="Work of each step, counted by the engine")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The blue bars show the same text, generated by the same model with a cache, nothing done twice: the prompt once, then one
# token a step. *How* that is possible is lesson 02; *that* it is possible is why nobody runs the orange loop.
#
# And the clock? Counters tell what was done; a clock tells how long you waited. (Your numbers will differ from these.)

# %% id="01-clock" tags=["nbval-ignore-output"]
from time import perf_counter

waits = {}
for use_cache in (False, True):
    begin = perf_counter()
    engine_generate(model, prompt, max_tokens=128, use_cache=use_cache, params=endless)
    waits[use_cache] = perf_counter() - begin
print(f"without a cache: {waits[False]:.2f} s")
print(f"with a cache: {waits[True]:.2f} s, {waits[False] / waits[True]:.1f} times as fast")
print(f"tokens processed: {works[128].tokens / cached.tokens:.1f} times fewer")

# %% [markdown]
# The two ratios differ, and that is worth a thought. A processor digests 100 tokens in one pass far faster than 100 passes
# with one token each, so *fewer tokens* is not *proportionally less time*. Lesson 04 makes use of it.
#
# ## ● The picture to remember
#
# Play the steps. Then make the prompt long, the answer long, and compare the totals.

# %% id="01-autoregressive"
explorers.autoregressive(model)

# %% [markdown]
# ## A closer look: what exactly is quadratic?
#
# Many texts say "attention is O(N²)" (it grows like N²) at this point, and mean something else. A model has two kinds of work:
#
# - **linear layers** (multiplying with the learned weights): the same work for every token that is run;
# - **attention**: every token that is run *looks at* every token before it, so its work grows with the length.
#
# The engine counts them apart, in **FLOPs**: single additions and multiplications. By what factor does each grow when the
# text doubles?

# %%
from itertools import pairwise

print("new tokens        without a cache          with a cache")
print("               linear   attention      linear   attention")
sizes = (250, 500, 1000, 2000)
table = {
    (n, c): costs.predict(model.config, len(prompt), n, use_cache=c) for n in sizes for c in (False, True)
}
for before, n in pairwise(sizes):
    growth = []
    for use_cache in (False, True):
        small, large = table[before, use_cache], table[n, use_cache]
        growth += [large.linear_flops / small.linear_flops, large.attention_flops / small.attention_flops]
    print(f"{before:4} → {n:4}" + "".join(f"{g:10.1f}×" for g in growth))

# %% [markdown]
# Read it column by column. **Without a cache** the linear layers grow four-fold when the text doubles (N²) and attention
# even eight-fold (N³). **With a cache** the linear layers only double (N), and attention, four-fold, is what stays quadratic
# (N²). *That* is the "O(N²)" of the textbooks: attention when every token is run **once**, be it in one long pass or one by
# one with a cache.
#
# ### Exercise 3 · `count_work` (full track)
#
# Say beforehand how many tokens a generation will process. `prompt` and `new` are *numbers* here: so many tokens given, so
# many wanted. With `use_cache=False` every step runs everything, with `use_cache=True` the prompt is run once and then each new token
# once. Careful with the last one: is it ever *run*?


# %% nbgrader={"solution": true, "grade_id": "01-count_work"}
def count_work(prompt, new, use_cache):
    """Tokens processed when `new` (1 or more) tokens are generated after `prompt` tokens: an int."""
    ### BEGIN SOLUTION
    if use_cache:
        return prompt + (new - 1)
    return sum(prompt + made for made in range(new))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "01-count_work-check", "points": 2} tags=["raises-exception"]
check("01.count_work", count_work)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_01 import count_work as hidden

hidden(count_work)
### END HIDDEN TESTS

# %% [markdown]
# ## What to be careful with
#
# - **The obvious loop is fine for short texts.** For ten tokens after a prompt of ten, it processes 145 tokens instead of
#   19, and on a machine with nothing else to do nobody would notice.
# - **Sampling cannot repair a model.** Top-p hides tokens that are very unlikely; it does not know which of the likely ones
#   are *true*.
# - **A low temperature is not "more correct".** At 0 the text ran in circles, as you saw, and the likely mistakes are made
#   every time.
#
# ## Quiz

# %% nbgrader={"grade": true, "grade_id": "01-quiz", "points": 6}
quiz("01_generation")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("01_generation")
### END HIDDEN TESTS

# %% [markdown]
# ## ● What you should be able to say now
#
# - A model gives one *logit* per vocabulary token and position; softmax turns the last row into probabilities.
# - *Temperature* reshapes them, *top-k*, *top-p* and *min-p* cut them, and then one token is drawn.
# - Generation is a loop; in a batch each row reads its own last position and stops on its own.
# - Without a cache, N new tokens after a prompt of P send N·P + N(N−1)/2 tokens through the model: quadratic.
# - The cure is to keep what was computed. What has to be kept, and how much memory does it take?
#
# **Next:** lesson 02, the KV cache. Where you stand: `lesson progress` in a terminal, or `progress()` in lesson 00.
