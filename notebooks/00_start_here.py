# %% [markdown]
# # 00 · Start here
#
# **15 minutes** (core track, sections marked ●: 2). Nothing to install, no account, no network: everything you will see
# runs on this machine.
#
# This course is about **inference**: everything that happens between *a model has been trained* and *somebody reads its
# answer*. That is where the waiting, the memory and most of the money go.
#
# A small language model travels with the course. It is called **pico**, has 9.9 million parameters (numbers learned in
# training), and completes Python code. You will run it, break it, measure it, and rebuild its engine piece by piece.

# %% [markdown]
# ## ● See it work
#
# Run a cell with **Shift+Enter**. The first one loads the model; that takes a second or two.

# %%
from lessonlib import LLM, SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, progress, quiz

llm = LLM("pico")
prompt = "import json\n\n\ndef read_json(path):"
answer = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=40))[0].outputs[0]
print(prompt + answer.text)

# %% [markdown]
# The text you gave is the **prompt**; what pico added is the **completion**. It looks like Python, and it is often wrong.
# That is fine. pico is 800 times smaller than a *small* chat model (8 billion parameters), and for us its smallness is a
# virtue: *you can watch everything it does.* How it computes is the same. (`[0].outputs[0]` reads: the first prompt's first
# completion. There could be several of both.)
#
# Ask again with a little chance allowed, and it often writes something else. Lesson 01 explains what `temperature` and
# `top_p` do.

# %%
for seed in range(3):
    params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=24, seed=seed)
    text = llm.generate(prompt, params)[0].outputs[0].text
    print(f"--- seed {seed}", text, sep="\n")

# %% [markdown]
# ## ● The whole trip on one picture
#
# From your prompt to the next piece of text there are five stations:
#
# 1. **Prompt**: the text you typed.
# 2. **Token ids**: the *tokenizer* cuts the text into pieces, *tokens*, and looks up a number for each.
# 3. **Logits**: the *model* turns the numbers into one score for every token it knows. A score like that is called a
#    *logit*.
# 4. **Sampling**: the scores become probabilities, and one token is chosen.
# 5. **Detokenize**: the number of that token becomes text again, and is appended to the prompt.
#
# Then it starts over, with a prompt that is one token longer. Press **Next token** and follow the data.

# %% id="00-pipeline"
explorers.pipeline(llm, prompt="def add(a, b):")

# %% [markdown]
# That is all a language model does: *one token, then again.* Every lesson of this course is about doing exactly this
# with less time, less memory or less risk.
#
# ## What you will be able to do
#
# After this course you can
#
# 1. **explain** how a model generates text, why the naive way gets slower with every token, and how a **KV cache** cures
#    it, and what the cure costs in memory;
# 2. **shrink** a model by **quantization**, and say what it saved, what it broke, and when it is faster;
# 3. **serve** many people at once with **batching** and speed up one of them with **speculative decoding**;
# 4. **deploy** a model (by API, on a server of your own, on a laptop) and **defend** it against the attacks that come with
#    each.
#
# ## ● Two tracks
#
# | track | time | what you do |
# |---|---|---|
# | **core** | 45 minutes for the whole course | read the sections marked ●, play with the pictures, skip the exercises |
# | **full** | one evening a lesson | everything: predictions, exercises, quizzes |
#
# Both work. Nobody forbids you to switch.

# %% [markdown]
# ## How a lesson works
#
# **You predict before you measure.** A wrong guess that you wrote down teaches more than a right number that you read.
# Lock one in: a *token* is a piece of text, often shorter than a word.

# %%
sentence = "def celsius_to_fahrenheit(degrees):"
predict("00.tokens", f"Into how many tokens does pico's tokenizer cut `{sentence}`?", unit="tokens")

# %%
ids = llm.tokenizer.encode(sentence)
print(llm.tokenizer.tokens(ids))
predict.compare("00.tokens", measured=len(ids), unit="tokens")

# %% [markdown]
# **You solve exercises, and checks tell you more than right or wrong.** An exercise is a function with a gap. Under it
# stands a cell such as
#
# ```python
# check("01.sample", sample)
# ```
#
# which runs your function in a second and shows a card: what was expected, what came, the smallest input that goes wrong,
# and, where it can tell, *the name of the mistake*. Until you write something, its card says "not started yet"; the rest of
# the notebook runs all the same.
#
# **You ask for hints when you are stuck.** `hint("01.sample")` gives one step at a time: three hints, then a worked
# example of the same idea somewhere else. Never the solution.

# %% [markdown]
# ## A quiz, to see how quizzes work
#
# Answers are saved as you give them. Practice questions explain every choice at once.

# %% id="00-quiz"
quiz("00_start_here")

# %% [markdown]
# ## Handing in
#
# **The grader tries other inputs.** "Visible checks passed" means: right on what was tried here. After you hand in, a
# grader runs your function on fresh inputs. A function that does what the exercise says has nothing to fear.
#
# **You hand in one file.** In a terminal (in JupyterLab: *File → New → Terminal*),
#
# ```
# lesson submit 01
# ```
#
# packs your notebook and your answers into a single zip file and tells you where it is. Your instructor says where to
# upload it. Studying alone? Then you never need it.
#
# **Nothing you make is lost.** Your answers, predictions and hints are kept in plain text files beside the notebooks
# (`01_generation.log.jsonl` and so on). Restart the kernel, close the lid: they are still there. When a newer version of a
# lesson arrives, it is put *beside* yours.

# %% [markdown]
# ## Where you stand
#
# Run this cell whenever you like. `lesson progress` shows the same in a terminal.

# %% id="00-progress" tags=["nbval-ignore-output"]
progress()

# %% [markdown]
# ## The lessons
#
# | | lesson | the question it answers |
# |---|---|---|
# | 00 | Start here | what is this? |
# | 01 | One token at a time | how does a model write, and why does each token cost more than the last? |
# | 02 | The KV cache | what if we did not compute everything again? |
# | 03 | Quantization | how few bits can a number have? |
# | 04 | Batching | how does one machine answer many people? |
# | 05 | Speculative decoding | can a small model do the work of a large one? |
# | 06 | Deployment | where should it run, and what does it cost? |
# | 07 | Security | who would abuse it, and how do you notice? |
# | 08 | Capstone | can you build all of it? |
#
# The progress table shows how far you are in each.
#
# ## ● What you should be able to say now
#
# - *Inference* is what happens after training: prompt → token ids → logits → sampling → text, one token at a time.
# - A *logit* is a score; there is one for every token the model knows.
# - A check shows what is wrong and, if it can, names the mistake; the grader tries other inputs.
#
# **Next:** open `01_generation.ipynb`.
