# %% [markdown]
# # 03 · Quantization
#
# **An evening:** 30 to 45 minutes to read, run and play, then the exercises. (Core track, the sections marked ●
# without their exercises: 8 minutes.)
#
# A model is a few hundred tables of numbers. In this lesson you store those numbers in 8 bits, then in 4:
# **quantization**. You will see what it saves, which is less than is often said; what it breaks, which is less than one
# would fear; and when it is faster, which is not always.

# %%
import torch
from lessonlib import SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.engine import costs, generate, load_model, load_tokenizer, perplexity, quantize_model

tokenizer = load_tokenizer("pico")
model = load_model("pico", dtype="bfloat16")
full = costs.stored_weight_bytes(model)
print(f"pico's matrices: {full // 2:,} weights of 16 bits are {full:,} bytes")

# %% [markdown]
# ## ● What a weight weighs
#
# **Question: why would anybody want smaller numbers?**
#
# A **weight** is one number of a model's matrices. pico's weights are kept in **bfloat16** (BF16): 16 bits, 2 bytes
# each. (FP16 is another format of 16 bits. The difference does not matter here.) Fewer bits take less memory. And there
# is a second reason, which lesson 02 touched on: to write *one* token, *every* weight has to be fetched from memory
# once. Count it, for a step that runs a single new token:

# %%
endless = SamplingParams(temperature=0, ignore_eos=True)
prompt = tokenizer.encode("import os\n\n\ndef read_text(path):")
with costs.count(model) as work:
    generate(model, prompt, max_tokens=2, params=endless)
step = work.steps[1]  # steps[0] runs the prompt
print(f"bytes of weights read: {step.weight_bytes:,}")
print(f"FLOPs computed:        {step.flops:,}")

# %% [markdown]
# About one FLOP (one addition or multiplication) for each byte. A processor can do far more than one FLOP in the time
# it takes to fetch one byte (the last picture of this lesson has the numbers), so most of the time it waits for
# weights: the step is **memory-bound**. Half the bytes could mean half the waiting. *Could*: we will measure.
#
# ## ● The idea: a grid
#
# **Question: can a weight be a small whole number?**
#
# Nearly. Lay a **grid** of evenly spaced values over the weights, from −7 steps to 7 steps. The width of one step is
# the **scale**. Of each weight keep only the number of the nearest grid value, its **code**. Fifteen codes fit into 4
# bits. Code × scale gives the weight back, *almost*.

# %%
weights = model.layers[10].self_attn.k_proj.weight.float()  # one of pico's matrices, 128 rows of 256 weights
few = weights[0, :6]

scale = few.abs().max() / 7  # the largest magnitude becomes code 7 or −7
codes = (few / scale).round()
back = codes * scale

for name, numbers in (("weights", few), ("codes", codes), ("back", back), ("error", back - few)):
    print(
        f"{name:8}"
        + "".join(f"{x + 0.0:9.0f}" if name == "codes" else f"{x + 0.0:9.4f}" for x in numbers.tolist())
    )
print(f"scale    {float(scale):.4f}")

# %% [markdown]
# The error is at most half a step. So the step had better be small, and that is a matter of bits: 8 bits have a grid
# from −127 to 127 (**INT8**), 4 bits one from −7 to 7 (**INT4**).

# %%
predict(
    "03.bit",
    "The whole matrix on one grid. We take away **one bit**, from 8 to 7. What happens to the error?",
    choices=["it stays about the same", "1.4 times as large", "2 times as large", "4 times as large"],
)


# %%
def error(kept, original):
    """Typical size of the error (root mean square), as a share of the typical weight."""
    return float(((kept - original).square().mean() / original.square().mean()).sqrt())


errors = {}
print("bits    grid          error    weights with code 0")
for bits in (8, 7, 6, 5, 4, 3, 2):
    end = 2 ** (bits - 1) - 1
    scale = weights.abs().max() / end
    codes = (weights / scale).round()
    errors[bits] = error(codes * scale, weights)
    print(f"{bits:4}    ±{end:<8} {errors[bits]:8.1%} {float((codes == 0).float().mean()):15.0%}")

ratio = errors[7] / errors[8]
predict.compare(
    "03.bit", measured=f"{ratio:.0f} times as large", note=f"Measured: {ratio:.2f} times the error."
)

# %% [markdown]
# Down to 4 bits each bit less doubles the error, because it doubles the step. At 4 bits more than half of the matrix has become 0, at
# 2 bits nearly all of it. Yet people run models in 4 bits every day. What do they do differently?
#
# ## ● One large weight spoils the grid for all
#
# **Question: who decides how wide a step is?**
#
# The *largest* weight of all those that share the scale. If it is much larger than the others, it is called an
# **outlier**, and the others have to make do with the few codes around 0.

# %%
typical = float(weights.square().mean().sqrt())
print(f"typical weight: {typical:.3f}, largest: {float(weights.abs().max()):.3f}")
print(f"the largest is {float(weights.abs().max()) / typical:.1f} times the typical one")

# %% [markdown]
# The cure is to let fewer weights share a scale: each row gets its own, or each **group** of, say, 64 neighbours in a
# row. An outlier then spoils only its own group. In the picture, one ordinary weight has been made 20 times larger.
# Change *Marked weight*, *One scale for* and the format, and watch the error and the bits a weight. (The button
# *Measure perplexity* waits for a word that comes further down.)

# %% id="03-quantization"
explorers.quantization("pico")

# %% [markdown]
# Every scale has to be stored as well, so small groups cost memory. Here is the trade for our matrix, with the engine's
# own INT8 and scales of 16 bits:

# %%
from lessonlib.engine.quantize.int8 import quantize_int8 as engine_int8  # your version keeps its name

print("weights that share a scale    error    bits a weight")
for group in (weights.numel(), 256, 64):
    codes, scales = engine_int8(weights.reshape(-1, group))  # a row for each group
    kept = (codes.float() * scales.float()[:, None]).view_as(weights)
    bits = 8 + 16 * len(scales) / weights.numel()
    print(f"{group:26,} {error(kept, weights):8.2%} {bits:16.2f}")

# %% [markdown]
# A scale for each row costs next to nothing and takes away most of the error. It is called **per-channel**
# quantization: a row of the matrix makes one output of the layer, one *channel*. There is a second reason to choose
# rows: in `y = x @ weight.T`, all weights that are added up into one output share a scale, so one can add up the codes
# first and multiply by the scale *once*, at the end.
#
# ### Exercise 1 · `quantize_int8` (full track)
#
# Write per-channel INT8. `weight` is a float32 tensor (rows, columns).
#
# - The scale of a row is its largest magnitude (distance from 0) divided by 127.
# - A code is weight / scale, rounded to the nearest whole number.
# - A row of zeros needs care: 0 / 0 is `nan`, *not a number*. Its scale must be greater than 0 (any will do), its codes
#   are 0.
# - Return two tensors: the codes, `torch.int8` (rows, columns), and the scales, float32 (rows,).
#
# Useful: `weight.abs()`, `x.amax(dim=…)` (largest along a dimension), `x.clamp(min=…)`, `x.round()`,
# `x.to(torch.int8)`, `x[:, None]` (one more dimension). Stuck? Run `hint("03.quantize_int8")`.


# %% nbgrader={"solution": true, "grade_id": "03-quantize_int8"}
def quantize_int8(weight):
    """Codes, int8 (rows, columns), and scales, float32 (rows,), of a weight (rows, columns)."""
    ### BEGIN SOLUTION
    largest_of_each_row = weight.abs().amax(dim=1)
    scales = (largest_of_each_row / 127).clamp(min=1e-12)
    codes = (weight / scales[:, None]).round().to(torch.int8)
    return codes, scales
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "03-quantize_int8-check", "points": 3} tags=["raises-exception"]
check("03.quantize_int8", quantize_int8)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_03 import quantize_int8 as hidden

hidden(quantize_int8)
### END HIDDEN TESTS

# %% [markdown]
# ## ● What is really saved
#
# **Question: how large is a "4-bit model"?**
#
# The calculation you find on the web is *number of weights × 4 bits*. For pico (**NF4** is 4 bits as well, with a table in
# place of the grid):

# %%
promised = full // 2 * 4 // 8
print(f"{full // 2:,} weights × 4 bits / 8 = {promised:,} bytes, a quarter of {full:,}")
predict(
    "03.bytes",
    "The engine stores pico in INT4 with groups of 64. How many **million bytes** does it really take?",
    unit="million bytes",
)

# %%
FORMATS = {
    "BF16": ("bfloat16", {}),
    "INT8": ("int8", {}),
    "INT4, groups of 128": ("int4", {"group_size": 128}),
    "INT4, groups of 64": ("int4", {"group_size": 64}),
    "INT4, groups of 32": ("int4", {"group_size": 32}),
    "NF4": ("nf4", {}),
    "NF4, double": ("nf4", {"double": True}),
}
sizes = {}
print("format                 bits a weight     all bytes    of BF16")
for name, (scheme, options) in FORMATS.items():
    small = quantize_model(load_model("pico", dtype="bfloat16"), scheme, **options)
    layer = small.layers[0].mlp.up_proj
    bits = 8 * costs.stored_bytes(layer) / (layer.in_features * layer.out_features)
    sizes[name] = costs.stored_weight_bytes(small)
    print(f"{name:20} {bits:15.3f} {sizes[name]:13,} {sizes[name] / full:10.1%}")
predict.compare("03.bytes", measured=sizes["INT4, groups of 64"] / 1e6, unit="million bytes")

# %% [markdown]
# A quarter was promised, and it is almost a third. Two things were forgotten.
#
# **Scales are bits too.** A group of 64 weights in the engine's INT4 has a scale and an offset of 16 bits each (an
# *offset* moves the grid, so that it need not be centred at 0):
#
# > 4 + (16 + 16) / 64 = **4.5** bits a weight.
#
# NF4 (it comes further down) keeps one float32, 32 bits, for each block of 64: 4 + 32 / 64 = 4.5 as well. **Double
# quantization** stores those float32 as codes of 8 bits in their turn, with one float32 for every 256 of *them*:
#
# > 4 + 8 / 64 + 32 / (64 × 256) = **4.127** bits a weight.
#
# (pico also has rows of 704, filled up to 768 for groups of 128: 4.34 bits on average, as in the picture above.)
#
# **Not everything is in 4 bits.** The embedding and the output layer (in pico they are one and the same matrix) stay in
# 8 bits here, because every prediction passes through them. In a small model they are a good part of it, in a large one
# hardly any.
#
# ### Two codes in one byte
#
# There is no tensor of 4-bit numbers: a byte, 8 bits, is the smallest thing a computer fetches. So two codes have to
# share a byte. Codes from −7 to 7 get 8 added, which makes them 1 to 15 (bits have no minus sign); then one goes into
# the *low* four bits, the other, moved up by `<< 4`, into the *high* ones. `|` puts them together; `& 15` and `>> 4`
# take them apart.

# %%
first, second = -3 + 8, 4 + 8
byte = first | second << 4
print(
    f"{first:2} is {first:08b}, {second} moved up is {second << 4:08b}, together {byte:08b}, the number {byte}"
)
print("apart again:", (byte & 15) - 8, (byte >> 4) - 8)

# %% [markdown]
# *Which* two codes share a byte is a matter of agreement: neighbours here; in the engine's INT4, rows that are 16 or 32
# apart, whichever this processor unpacks faster. Only whoever packs and whoever unpacks have to agree.
#
# ### Exercise 2 · `quantize_int4` (full track)
#
# Write INT4 in groups, packed. `weight` is float32 (rows, columns); `columns` is a multiple of `group_size`, which is
# even.
#
# - A group is `group_size` neighbours in a row. Its scale is its largest magnitude divided by 7 (greater than 0, as
#   before).
# - A code is weight / scale, rounded; stored is code + 8.
# - Columns 0 and 1 share a byte, columns 2 and 3, and so on: the first in the low four bits, the second in the high
#   ones.
# - Return two tensors: the bytes, `torch.uint8` (rows, columns / 2), and the scales, float32 (rows, columns /
#   group_size).
#
# Useful: `weight.view(rows, -1, group_size)`, `x.amax(dim=-1, keepdim=True)`, `x.flatten(1)`, `x[:, ::2]` (every second
# column), and `x[:, 1::2]` (the others).


# %% nbgrader={"solution": true, "grade_id": "03-quantize_int4"}
def quantize_int4(weight, group_size):
    """Bytes, uint8 (rows, columns / 2), and scales, float32 (rows, columns / group_size)."""
    ### BEGIN SOLUTION
    groups = weight.view(len(weight), -1, group_size)
    scales = (groups.abs().amax(dim=-1, keepdim=True) / 7).clamp(min=1e-12)
    stored = ((groups / scales).round() + 8).to(torch.uint8).flatten(1)
    two_codes_a_byte = stored[:, ::2] | stored[:, 1::2] << 4
    return two_codes_a_byte, scales.squeeze(-1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "03-quantize_int4-check", "points": 4} tags=["raises-exception"]
check("03.quantize_int4", quantize_int4)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_03 import quantize_int4 as hidden

hidden(quantize_int4)
### END HIDDEN TESTS

# %% [markdown]
# ## NF4: a table instead of a grid
#
# **Question: where would *you* put sixteen values?**
#
# Where the weights are. Divided by the largest magnitude of their block, they crowd around 0 and are rare at the ends.
# An even grid gives both the same number of values. **NF4**, *4-bit NormalFloat*, uses a table of sixteen **levels**
# instead, chosen for numbers that follow the bell curve (the *normal distribution*): close together around 0, far apart
# at the ends.

# %%
import matplotlib.pyplot as plt
from lessonlib.engine.quantize import nf4 as engine_nf4

LEVELS = engine_nf4.LEVELS
blocks = weights.view(-1, 64)
scaled = (blocks / blocks.abs().amax(dim=1, keepdim=True)).flatten()

figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.hist(scaled.numpy(), bins=81, color="#BBBBBB", label="weights / largest of their block of 64")
top = ax.get_ylim()[1]
for height, levels, color, style, name in (
    (1.06, [code / 7 for code in range(-7, 8)], "#0072B2", "o", "INT4: an even grid"),
    (1.16, LEVELS, "#D55E00", "D", "NF4: a table"),
):
    ax.plot(levels, [top * height] * len(levels), style, color=color, markersize=5, label=name)
ax.set(ylim=(0, 1.65 * top), yticks=[], title="Where the weights are, and where the levels are")
ax.legend(frameon=False, loc="upper center", ncols=3, fontsize=8)
plt.show()
print("NF4's levels:", ", ".join(f"{level:.2f}" for level in LEVELS))

# %% [markdown]
# (The two spikes are the largest weights of the blocks themselves: they became exactly −1 or 1.)
#
# So code 15 does not mean 15 of anything: it means *the last entry of the table*. Many texts call NF4 a 4-bit
# **integer** format, and code that computes with its codes as numbers is easy to find, and to write. Watch it fail:

# %%
stored = engine_nf4.quantize_nf4(weights)  # two codes a byte, and the largest magnitude of each block
pairs = torch.stack([stored.packed >> 4, stored.packed & 15], dim=1).view(-1, 64).float()  # 64 codes a block
as_integers = ((pairs - 8) / 7 * stored.absmax[:, None]).view_as(weights)  # as exercise 2 means its codes
looked_up = engine_nf4.dequantize_nf4(stored, weights.numel()).view_as(weights)
print(f"codes taken for whole numbers: error {error(as_integers, weights):6.1%}")
print(f"codes looked up in the table:  error {error(looked_up, weights):6.1%}")

# %% [markdown]
# ### Exercise 3 · `dequantize_nf4` (full track)
#
# Turn stored NF4 back into numbers.
#
# - `packed`: `torch.uint8`, two codes a byte. The *first* of two neighbours is in the **high** four bits here. (The
#   other way round than in exercise 2: this is how the library bitsandbytes stores NF4.)
# - `levels`: the table, float32 (16,). A code is a place in it.
# - `absmax`: float32, the largest magnitude of each block of `block_size` neighbours (a whole number of blocks,
#   `block_size` even).
# - Return all numbers, float32, in one dimension: level × largest magnitude of the block.
#
# Useful: `torch.stack([a, b], dim=1).flatten()` (a, b, a, b, …), `levels[places]` with `places.long()`, and `view(-1,
# block_size)`.


# %% nbgrader={"solution": true, "grade_id": "03-dequantize_nf4"}
def dequantize_nf4(packed, absmax, levels, block_size):
    """The numbers, float32 (2 × bytes,), that NF4's bytes stand for."""
    ### BEGIN SOLUTION
    places = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    one_row_for_each_block = levels[places].view(-1, block_size)
    return (one_row_for_each_block * absmax[:, None]).flatten()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "03-dequantize_nf4-check", "points": 3} tags=["raises-exception"]
check("03.dequantize_nf4", dequantize_nf4)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_03 import dequantize_nf4 as hidden

hidden(dequantize_nf4)
### END HIDDEN TESTS

# %% [markdown]
# Is the table worth it? For our matrix, at about the same number of bits:

# %%
from lessonlib.engine.quantize.int4 import Int4Linear

for name, layer in (
    ("INT4, scale and offset", Int4Linear.from_weight(weights)),
    ("INT4, scale alone", Int4Linear.from_weight(weights, symmetric=True)),
    ("NF4", engine_nf4.NF4Linear.from_weight(weights)),
    ("NF4, double", engine_nf4.NF4Linear.from_weight(weights, double=True)),
):
    print(
        f"{name:24} {layer.bits_per_weight:.2f} bits a weight, error {error(layer.dequantize(), weights):.2%}"
    )

# %% [markdown]
# Close together. An offset for every group costs INT4 a quarter of a bit a weight and makes the error smaller. The table
# itself costs nothing: the half bit of NF4 is its float32 scale, and double quantization makes an eighth of that, at
# hardly any more error. How much of this the text notices, only the model can say. So let us ask it.
#
# ## ● Does it still write Python?
#
# **Question: what does an error of 9 % in every weight do to the text?**
#
# Errors in weights are not what anybody reads. The usual measure is **perplexity** (lesson 02): between how many
# equally likely tokens the model hesitates, on average, before each token of a text. Lower is better. The text is a
# module of Python on which pico was not trained. (Your last digits will differ: processors add up in different orders.)

# %% id="03-perplexity" tags=["nbval-ignore-output"]
import heapq
import inspect

held_out = tokenizer.encode(inspect.getsource(heapq))[:1024]


def one_grid_a_matrix(bits):
    """pico after rounding each matrix of its layers to a grid of its own, one scale for all of it."""
    rounded = load_model("pico", dtype="bfloat16")
    for linear in (m for m in rounded.layers.modules() if isinstance(m, torch.nn.Linear)):
        scale = linear.weight.abs().max() / (2 ** (bits - 1) - 1)
        linear.weight.copy_((linear.weight / scale).round() * scale)
    return rounded


def stored_as(scheme, **options):
    return quantize_model(load_model("pico", dtype="bfloat16"), scheme, **options)


for name, small in (
    ("BF16", stored_as("bfloat16")),
    ("INT8, one scale a matrix", one_grid_a_matrix(8)),
    ("INT8, one scale a row", stored_as("int8")),
    ("INT4, one scale a matrix", one_grid_a_matrix(4)),
    ("3 bits, one scale a matrix", one_grid_a_matrix(3)),
    ("INT4, groups of 128", stored_as("int4", group_size=128)),
    ("INT4, groups of 64", stored_as("int4")),
    ("INT4, groups of 32", stored_as("int4", group_size=32)),
    ("NF4", stored_as("nf4")),
    ("NF4, double", stored_as("nf4", double=True)),
):
    print(f"{name:28} perplexity {perplexity(small, held_out).perplexity:9.2f}")

# %% [markdown]
# INT8 costs nothing one could notice, even on one grid a matrix. With 4 bits on one grid, pico hesitates between half
# as many tokens again; with 3, nothing of the model is left: errors add up slowly, then all at once. But in groups,
# four bits cost a few percent, groups of 32 the least. (That 64 comes out behind 128 is chance.) NF4 is a little behind INT4 here, though its error was as small: what an error does depends on where it is.
#
# This is one text and one small model. Others will forgive more or less: *measure on your own texts.*
#
# ## ● Is it faster?
#
# **Question: a third of the bytes. Three times as fast?**

# %%
print(f"INT4 in groups of 64, and NF4: 1 / {full / sizes['INT4, groups of 64']:.2f} of the bytes of BF16")
predict(
    "03.faster",
    "pico writes one text, token by token. How fast will it be in **NF4**, compared with BF16?",
    choices=["slower", "about as fast", "about twice as fast", "more than three times as fast"],
)

# %% [markdown]
# First on paper. The picture takes the bytes and the FLOPs of a step, divides each by what a processor can do at best,
# and takes the longer of the two times. (It is called a *roofline*. The *ridge* is how many FLOPs this chip can do in the
# time it takes to fetch one byte.) A **batch** is what is written at the same time; its texts share the fetching of
# weights, but not the computing. Change the weights from 16 bits to INT4 at batch 1, then at batch 1,024.

# %% id="03-roofline"
explorers.roofline("Llama-3.1-8B", batch=1)

# %% [markdown]
# So on paper fewer bits help as long as a step waits for memory: few texts at a time, one token each. A long prompt, or
# a large batch, is **compute-bound**: then the weights wait for the processor, and fewer bits change nothing.
#
# And in reality? Here is the clock: writing (one token a step) and reading a prompt (256 tokens in one step). *Your
# numbers will differ*, perhaps by a lot.

# %% id="03-clock" tags=["nbval-ignore-output"]
from time import perf_counter

from lessonlib.engine import DenseCache


def fastest(action, times):
    """Seconds of the fastest of several runs: the one that other programs on this machine disturbed least."""
    taken = []
    for _ in range(times):
        begin = perf_counter()
        action()
        taken.append(perf_counter() - begin)
    return min(taken)


@torch.inference_mode()
def speed(model, steps=40, length=256):
    """Tokens a second of one text: (written, read as a prompt)."""
    cache = DenseCache(model.config, max_length=steps, dtype=model.dtype)
    one, many = torch.tensor([held_out[:1]]), torch.tensor([held_out[:length]])
    write = fastest(lambda: model(one, cache=cache), steps)
    read = fastest(lambda: model(many, last_only=True), 3)
    return 1 / write, length / read


models = {
    "BF16": model,
    "FP16": stored_as("float16"),
    "INT8": stored_as("int8"),
    "NF4": stored_as("nf4"),
}
rounds = [{name: speed(one) for name, one in models.items()} for _ in range(3)]  # in turn: a fair race
speeds = {name: [max(both) for both in zip(*(r[name] for r in rounds), strict=True)] for name in models}
print(f"threads: {torch.get_num_threads()}")
print("format    writes, tokens a second    reads a prompt, tokens a second")
for name, (write, read) in speeds.items():
    times = [f"({here / base:.2f} ×)" for here, base in zip((write, read), speeds["BF16"], strict=True)]
    print(f"{name:8} {write:12,.0f} {times[0]} {read:21,.0f} {times[1]}")

ratio = speeds["NF4"][0] / speeds["BF16"][0]
words = ["slower", "about as fast", "about twice as fast", "more than three times as fast"]
predict.compare(
    "03.faster",
    measured=words[(ratio > 0.9) + (ratio > 1.4) + (ratio > 3)],
    note=f"Measured: {ratio:.2f} times the speed of BF16.",
)

# %% [markdown]
# Four lines, four lessons.
#
# - **INT8 writes faster than BF16.** PyTorch has a *fused kernel* for it, a piece of machine code that reads the codes
#   and multiplies with them at once.
# - **So does FP16, when these numbers were taken**, although it has exactly as many bytes as BF16. Bytes cannot be the
#   reason: for a single token, PyTorch's FP16 kernel suits this processor better than its BF16 kernel. (For a whole
#   prompt it is the other way round, and by far.) On your machine it may be neither.
# - **NF4 writes slower**, although it is the smallest of the four. PyTorch has no fused kernel for it, so each step
#   first turns all weights back into 16 bits, and then does what BF16 does. It saves memory and costs time.
# - **Reading a prompt gains nothing from fewer bits; here it loses.** 256 tokens share each fetched weight, so fetching
#   was not the trouble, and unpacking comes on top.
#
# > **Fewer bits are faster when the step is memory-bound *and* a kernel computes with the codes as they are stored.
# > Otherwise they are only smaller.**
#
# pico is so small that the first condition hardly holds: its 20 million bytes may stay in the *cache* of the processor
# (its own small, fast memory; the name is all it shares with lesson 02), and what a step waits for is everything else.
# The course's benchmarks (`benchmarks/README.md` in its repository) repeat the measurement with weights that fit into
# no such cache. On a CPU, in the shapes of SmolLM2-360M and written one text at a time: INT8 2.1 × as fast as BF16,
# INT4 2.6 ×, NF4 0.3 ×. On a GPU, in the shapes of Llama-3-8B: INT8 1.56 ×, INT4 1.77 ×, though INT4 has 3.5 times
# fewer bytes; and with 32 texts at a time INT4 was *slower* than BF16.
#
# ## The listing you find everywhere
#
# This is how the library **transformers** loads a model in NF4, with **bitsandbytes** doing the work. It runs on pico's
# folder as on any other. (Packages missing? Then it says which; the rest of the lesson does not need them.)

# %% id="03-bitsandbytes" tags=["nbval-ignore-output"]
import logging

from lessonlib.engine import resolve

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
try:
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    theirs = AutoModelForCausalLM.from_pretrained(resolve("pico"), quantization_config=config)
except (ImportError, RuntimeError) as problem:
    print(f"Not run here ({str(problem).splitlines()[0]}): pip install transformers bitsandbytes accelerate")
else:
    size, number = theirs.get_memory_footprint(), theirs.num_parameters()
    print(f"{size:,} bytes for {number:,} parameters: {8 * size / number:.2f} bits each")
    same = engine_nf4.quantize_nf4(model.layers[0].mlp.up_proj.weight, double=True).packed
    their_layer = theirs.model.layers[0].mlp.up_proj.weight.data.flatten().cpu()
    print("the same codes as our engine's, byte for byte:", torch.equal(same, their_layer))

    their_tokenizer = AutoTokenizer.from_pretrained(resolve("pico"))
    inputs = their_tokenizer("def area(width, height):", return_tensors="pt").to(theirs.device)
    print(their_tokenizer.decode(theirs.generate(**inputs, max_new_tokens=12, do_sample=False)[0]))

# %% [markdown]
# (Their count leaves the scales out; with them it is nearer to 5.4 bits.) What the four settings mean, now that you know:
# `load_in_4bit` replaces the linear layers (the embedding stays at 16 bits, which is why the model takes more than 4 bits
# a parameter); `quant_type="nf4"` is the table (the default, `"fp4"`, is another
# table); `double_quant` stores the blocks' maxima in 8 bits; and `compute_dtype` is the format into which the weights
# are turned back, *for every product*. Nothing is computed in 4 bits here.

# %% [markdown]
# ### Exercise 4 · Compare the formats (full track; read by a person)
#
# Compare FP16, BF16, INT8, INT4 and NF4 on pico, in memory, speed and quality, and say what you would use. All tools
# are above:
#
# ```python
# small = stored_as("float16")                  # then "bfloat16", "int8", "int4" and "nf4"
# costs.stored_weight_bytes(small)              # memory
# speed(small)                                  # tokens a second: written, read
# perplexity(small, held_out).perplexity        # quality
# ```
#
# Make a cell of your own below (**+**) and measure. Then double-click the cell after it, fill the table, and answer in
# two or three sentences each. You get 2 points for a complete table of your own measurements, 1 for the memory (why is
# INT4 not a quarter of FP16?), 2 for the speed (where is it faster, where not, and *why*?), and 1 for a choice with a
# reason.

# %% [markdown] nbgrader={"grade": true, "solution": true, "grade_id": "03-compare", "points": 6}
# **My measurements** (machine: …)
#
# | format | bytes | of FP16 | writes, tokens/s | reads, tokens/s | perplexity |
# |---|---|---|---|---|---|
# | FP16 | … | 100 % | … | … | … |
# | BF16 | … | … | … | … | … |
# | INT8 | … | … | … | … | … |
# | INT4 | … | … | … | … | … |
# | NF4 | … | … | … | … | … |
#
# **1. Memory.** Why is INT4 not a quarter of FP16? **2. Speed.** Where is it faster, where not, and why? **3. Choice.**
# What would you use for (a) a laptop with little memory, (b) a server that answers many people at once, and why?
#
# ### BEGIN SOLUTION
# *A model answer.* Bytes are exact: 19,791,872 for both 16-bit formats, then 9,962,496 (50.3 %), 6,033,408 (30.5 %) and
# again 6,033,408. Speed differs from machine to machine; on the author's (one thread) FP16, INT8 and INT4 wrote about
# 350 tokens a second, BF16 220, NF4 100; FP16 read about 800, the others 6,000 to 10,000. Perplexity: FP16 and BF16
# 17.6, INT8 17.7, INT4 18.3, NF4 18.6, give or take 0.1.
#
# 1. Each group of 64 has a scale and an offset (NF4: a float32 maximum), 32 bits together, which makes 4.5 bits a
#    weight; and the embedding, which is also the output layer, stays in 8 bits.
# 2. Writing runs one token a step: INT8 and INT4 fetch fewer bytes and have kernels that compute with the codes, so
#    they are faster than BF16. NF4 has none: its weights are turned back into 16 bits in every step. FP16 and BF16 have
#    the same bytes and different speeds, so the kernel decides as much as the bytes do; pico may fit into the
#    processor's cache. Reading a prompt is compute-bound: many tokens share each weight, so fewer bytes do not help,
#    and unpacking costs extra.
# 3. (a) INT4, the smallest with a kernel (or NF4 with double quantization if memory alone decides); (b) INT8 or 16
#    bits: with many texts at once the step is compute-bound, so 4 bits cost quality and bring no speed, unless memory
#    for the KV caches is what is short.
#
# **Mark scheme, 6 points**
#
# - 2: table complete, from measurement. Only 1 if the speed of reading or the perplexity is missing, or if bytes are
#   computed as weights × bits (4,947,968 for INT4 gives that away).
# - 1: names the scales (or offsets, maxima) *or* the 8-bit embedding as the reason, with a number. None for "overhead".
# - 2: 1 for writing (one token for each fetched weight) against reading (many), 1 for kernels (NF4 has none, or FP16 is
#   not BF16). A table that contradicts the usual picture earns both if the explanation fits *its* numbers.
# - 1: a choice for (a) and for (b), each with a reason out of the student's own table. Any format can be right.
# ### END SOLUTION

# %% [markdown]
# ## What to be careful with
#
# - **"4 bits" is a name, not a size.** Ask for bits a weight with scales, and what was left in 16 bits.
# - **Smaller is not faster by itself.** Without a kernel for the format it is slower; in a large batch it gains little.
# - **Perplexity is an average.** A model can lose little on average and much on what *you* need. Nothing replaces
#   trying it on your task.
# - **Rounding to the nearest is only the beginning.** Methods such as GPTQ and AWQ look at some typical text and choose
#   codes so that the layers' *outputs* stay close (`quantize_model(model, "int4", calibration=ids)`); they win back
#   part of what 4 bits lose.
# - **Weights are not all.** The KV cache can be quantized as well (lesson 02). Numbers that are computed on the way
#   (*activations*) have worse outliers than weights, which is why they mostly stay in 16 bits.
#
# ## Quiz

# %% nbgrader={"grade": true, "grade_id": "03-quiz", "points": 7}
quiz("03_quantization")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("03_quantization")
### END HIDDEN TESTS

# %% [markdown]
# ## ● What you should be able to say now
#
# - Quantization keeps a *code* for each weight and a *scale* for a group of them; code × scale gives it back within
#   half a step.
# - The largest weight of a group sets its step. Small groups hold outliers in check and cost bits: INT4 or NF4 in
#   groups of 64 is 4.5 bits a weight, 4.13 with double quantization.
# - NF4's codes are places in a table, not numbers (full track).
# - INT8 is nearly free in quality. Four bits cost a little in groups, and much on one grid.
# - It is faster where a step waits for memory *and* a kernel computes with the codes. Otherwise it is only smaller.
#
# **Next:** lesson 04, batching: what if the weights that were fetched for one text served many?
