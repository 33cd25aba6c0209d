# %% [markdown]
# # 06 · Deployment
#
# **An evening:** 30 to 45 minutes to read, run and play, then the exercises. (Core track, the sections marked ●
# without their exercises: 7 minutes.)
#
# The engine runs, and it is small and fast. Now somebody wants to *use* it. In this lesson you work out where a model should
# run and what that costs, start a real server, talk to it in three dialects, block it with one word too many, push it until
# it bends, and take the model along in a single file.

# %%
import asyncio
import json
import os
import tempfile
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import matplotlib.pyplot as plt
from lessonlib import LLM, SamplingParams, explorers
from lessonlib.classroom import check, hint, predict, quiz
from lessonlib.classroom.checks.lesson_06.local_server import LocalServer

llm = LLM("pico")

# %% [markdown]
# ## ● Four places to run a model
#
# **Question: who owns the machine?**
#
# | | | you pay | the text is read by |
# |---|---|---|---|
# | 1 | a **hosted API** | for each token | the provider |
# | 2 | **your own server with vLLM**, a ready-made inference engine | by the hour, busy or not | you, and who rents you the machine |
# | 3 | **your own server with a program of yours** | by the hour, and with your evenings | the same |
# | 4 | **at the edge**: on the user's own computer or phone | for the machine, once; then electricity | nobody else |
#
# There is no best row; there are prices, and how much there is to do. The picture draws dollars for a million new tokens
# against new tokens a day. (2 and 3 are one line in it: a rented machine costs the same whatever program runs there. What
# differs is its speed.) **The prices are examples**, round numbers amid what was listed in the middle of 2026; put in your
# own.

# %% id="06-deployment"
explorers.deployment(server_speed=2000, computer_speed=15)

# %% [markdown]
# Look at the shapes. The API is a flat line: twice the tokens, twice the bill. The server's line falls: its day costs the
# same whether one person asks or a thousand do, until it is full and a second one is needed. The computer's line falls for
# the same reason: it was bought (here for 1,500 dollars, spread over four years), busy or not. So the question is never "what
# does the server cost?" but **"how busy will it be?"**

# %%
predict(
    "06.idle",
    "A server costs 3 dollars an hour and makes 2,000 tokens a second. Were it busy all day, a million tokens would cost "
    "0.42 dollars. There is work for **one hour** of the day. What does a million tokens cost?",
    unit="dollars",
)

# %%
hourly, speed = 3.00, 2000  # dollars an hour, new tokens a second when busy
price_in, price_out, prompt_ratio = 0.20, 0.60, 2  # dollars a million; prompt tokens for each new one

api = price_out + prompt_ratio * price_in
print(f"API:                   {api:6.2f} dollars for a million new tokens and their prompts")
for hours in (24, 12, 6, 1):
    tokens = speed * 3600 * hours
    print(f"server, busy {hours:2} h/day: {24 * hourly / tokens * 1e6:6.2f}")
predict.compare("06.idle", measured=24 * hourly / (speed * 3600) * 1e6, unit="dollars")

# %% [markdown]
# The hours in which nobody asks are paid for as well. "0.42 dollars a million" is the price of a server that never rests,
# and it is the one you find in advertisements. With these prices, busy half the day it beats the API; busy a
# quarter of it, it does not.
#
# ### Exercise 1 · `break_even` (full track)
#
# From how many *new* tokens a day does one server of your own cost **no more** than the API? All arguments are numbers:
#
# - `price_in`, `price_out`: what the API charges for a million prompt tokens and a million new ones, in dollars;
# - `prompt_ratio`: prompt tokens that come with each new one;
# - `hourly`: dollars an hour for the server, all 24 hours of the day;
# - `speed`: new tokens a second that it makes when busy. (Reading the prompts is in it.)
#
# Return the number of new tokens a day (a float, not rounded), or `None` if the server could not make that many in a day.
# Stuck? Run `hint("06.break_even")` in a cell of your own.


# %% nbgrader={"solution": true, "grade_id": "06-break_even"}
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    """New tokens a day from which a server costs no more than the API, or None for never."""
    ### BEGIN SOLUTION
    api_per_token = (price_out + prompt_ratio * price_in) / 1e6
    tokens_a_day = 24 * hourly / api_per_token
    most_it_can_make = speed * 24 * 60 * 60
    return tokens_a_day if tokens_a_day <= most_it_can_make else None
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "06-break_even-check", "points": 2} tags=["raises-exception"]
check("06.break_even", break_even)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_06 import break_even as hidden

hidden(break_even)
### END HIDDEN TESTS

# %% [markdown]
# ## ● A server, and three dialects
#
# **Question: what goes over the wire?**
#
# A **server** is a program that waits for requests and answers them over the network, mostly by **HTTP**, the rules by which
# browsers and web pages talk. The course has one, built around the engine of the earlier lessons. In a terminal you would
# start it with
#
# ```
# lesson serve pico
# ```
#
# Here the notebook does that for you, on any **port** that is free (a port is the number of a door of the machine). The
# server listens on this machine only, works on one processor core (so that one is left for us), answers eight texts at a time
# (we shall see why that matters), and ends with this notebook. Starting takes a few seconds: a second Python has to load the
# model.

# %% id="06-server"
server = LocalServer("pico", "--max-num-seqs", "8", "--num-kv-blocks", "512")


def get(path):
    """What the server answers to GET."""
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return answer.read().decode()


def post(path, body):
    """POST some JSON; what comes back is JSON too."""
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


print(get("/health"))

# %% [markdown]
# There is nothing secret about such a server: a request is a text with named fields (the notation is called **JSON**, and
# looks like a Python dict), and so is the answer. Three companies have settled differently on *which* fields; the
# course's server speaks all three dialects. The same question in each:

# %%
question = [{"role": "user", "content": "Reverse a list."}]

common = {"model": "pico", "messages": question}
openai_says = post("/v1/chat/completions", {**common, "max_tokens": 12, "temperature": 0})
anthropic_says = post("/v1/messages", {**common, "max_tokens": 12, "temperature": 0})
options = {"temperature": 0, "num_predict": 12}
ollama_says = post("/api/chat", {**common, "stream": False, "options": options})

used = openai_says["usage"]
print("OpenAI:   ", repr(openai_says["choices"][0]["message"]["content"]))
print(f"           {used['prompt_tokens']} tokens in, {used['completion_tokens']} out")
used = anthropic_says["usage"]
print("Anthropic:", repr(anthropic_says["content"][0]["text"]))
print(f"           {used['input_tokens']} tokens in, {used['output_tokens']} out")
print("Ollama:   ", repr(ollama_says["message"]["content"]))
print(f"           {ollama_says['prompt_eval_count']} tokens in, {ollama_says['eval_count']} out")

# %% [markdown]
# The same model, the same tokens, three ways to write it down. (Most of the tokens that went in are not yours: the server
# wraps each message in the model's **chat template**, markers that say who speaks and where a message ends.) You rarely write them yourself: each company has a **client**,
# a package that does. The clients are optional here (`pip install openai anthropic ollama`); where one is missing, its cell
# says so and shows what came by hand. Note what they need to know: **an address, a key** (the password of whoever pays; our
# server wants none) **and the model's name.**


# %%
def optional(name):
    """The package, or None and a sentence."""
    try:
        return import_module(name)
    except ImportError:
        print(
            f"The package {name} is not installed (pip install {name}); the same with the standard library:"
        )
        return None


openai = optional("openai")
if openai:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    answer = client.chat.completions.create(model="pico", messages=question, max_tokens=12, temperature=0)
    print(answer.choices[0].message.content)
else:
    print(openai_says["choices"][0]["message"]["content"])

# %%
anthropic = optional("anthropic")
if anthropic:
    client = anthropic.Anthropic(base_url=server.url, api_key="none")
    # `extra_body`: for fields that a client has no argument for, as the newest version for `temperature`
    answer = client.messages.create(
        model="pico", messages=question, max_tokens=12, extra_body={"temperature": 0}
    )
    print(answer.content[0].text)
else:
    print(anthropic_says["content"][0]["text"])

# %%
ollama = optional("ollama")
if ollama:
    client = ollama.Client(host=server.url)
    answer = client.chat(model="pico", messages=question, options={"temperature": 0, "num_predict": 12})
    print(answer.message.content)
else:
    print(ollama_says["message"]["content"])

# %% [markdown]
# ### What the version on the web gets wrong
#
# **Anthropic's call without `max_tokens`.** For OpenAI's format the length is optional, so the argument gets lost when a
# listing is copied from one to the other. Anthropic's client stops before it sends anything, and a server that speaks this
# format refuses:

# %%
try:
    post("/v1/messages", {"model": "pico", "messages": question})
except urllib.error.HTTPError as refusal:
    print(refusal.code, refusal.read().decode())

# %% [markdown]
# **A model's name in the code.** Names are retired; the listing that was right last year is answered with 404. Take the name
# from the configuration, or ask the server which models it has:

# %%
try:
    post("/v1/chat/completions", {"model": "gpt-3.5-turbo", "messages": question, "max_tokens": 12})
except urllib.error.HTTPError as refusal:
    print(refusal.code, refusal.read().decode())
print([model["id"] for model in json.loads(get("/v1/models"))["data"]])

# %% [markdown]
# **`python -m vllm.entrypoints.openai.api_server --model MODEL`.** It is how vLLM used to be started. The command is now
#
# ```
# vllm serve MODEL
# ```
#
# In vLLM 0.32 the old one still runs, and says of itself that it is deprecated and may be removed.
#
# ### One program, any server
#
# vLLM speaks OpenAI's format, and so do most hosted APIs. So the *same* code talks to all of them, if it does not say where:


# %%
def ask(messages, place):
    """One answer from any server that speaks OpenAI's format. place: its address, key and model."""
    body = {"model": place["model"], "messages": messages, "max_tokens": 12, "temperature": 0}
    request = urllib.request.Request(
        place["base_url"] + "/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {place['api_key']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


places = {
    "course": {"base_url": f"{server.url}/v1", "api_key": "none", "model": "pico"},
    "vllm": {"base_url": "http://127.0.0.1:8001/v1", "api_key": "none", "model": "pico"},
    "hosted": {
        "base_url": os.environ.get("HOSTED_URL", ""),  # the provider's page names it
        "api_key": os.environ.get("HOSTED_KEY", ""),  # never in the code: code is copied and shared
        "model": os.environ.get("HOSTED_MODEL", ""),
    },
}
print(ask(question, places["course"]))

# %% [markdown]
# With the client it is the same change: `openai.OpenAI(base_url=…, api_key=…)`. To try the second row, type in a terminal
# (vLLM has to be installed, and takes a minute or two to start):
#
# ```
# lesson export pico --to hf --output pico-hf
# vllm serve ./pico-hf --served-model-name pico --port 8001
# ```
#
# and then `ask(question, places["vllm"])`. (It may choose other words: vLLM computes with 16 bits here, our server with 32.)
# The third row costs money and sends your text away, so the notebook does not touch it.

# %% [markdown]
# ## Watching the answer arrive
#
# **Question: how long until the first word?**
#
# With `"stream": true` the server does not wait for the end. It sends each piece of text when it is there, as
# **server-sent events** (SSE): lines of text that begin with `data:`, and an empty line after each event. Here are the bytes.
# (Your ids and numbers will differ.)

# %% id="06-stream" tags=["nbval-ignore-output"]
body = {
    "model": "pico", "messages": question, "max_tokens": 5, "temperature": 0,
    "stream": True, "stream_options": {"include_usage": True},
}  # fmt: skip
request = urllib.request.Request(
    f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
begin, recorded = perf_counter(), []
with urllib.request.urlopen(request, timeout=60) as answer:
    while data := answer.read1():  # whatever has arrived, as soon as something has
        recorded.append((1000 * (perf_counter() - begin), data))

for ms, data in recorded:
    print(f"after {ms:.0f} ms: {data.decode()}", end="")

# %% [markdown]
# Read it from the top: a first event with a role and *no text*; then events with text; then one whose list of `choices` is
# empty, and which says in `usage` how many tokens there were; and at the end `[DONE]`, which is not JSON.
#
# Two times matter to whoever waits (lesson 04 had them): the **time to first token** (TTFT), and the **time per output
# token** (TPOT), the mean gap between tokens after it. A client can measure both, if it reads carefully.
#
# ### Exercise 2 · `read_stream` (full track)
#
# `chunks` is a list of pairs `(milliseconds, bytes)`: what arrived, and when, counted from the moment the request was sent.
# `recorded` above is one. Return `{"text": …, "ttft": …, "tpot": …}`:
#
# - `text`: all pieces of text, joined;
# - `ttft`: the milliseconds of the chunk that completed the first *non-empty* piece of text, `None` if there was none;
# - `tpot`: milliseconds from there to the last *non-empty* piece, divided by (number of tokens − 1). The number of tokens
#   is `usage.completion_tokens`. `None` if there are fewer than two, or no text.
#
# The network cuts the bytes where it likes: a chunk may hold several events, or end in the middle of a line, even in the
# middle of a letter. Only lines that begin with `data:` count (one space may follow). Others may come: empty ones, and
# comments that begin with a colon. A line ends with `\n` or `\r\n`. A `delta` may lack `content`, `choices` may be empty,
# and a text may say `[DONE]` without being the end.
#
# Useful: `rest = b""`, `b"a\nb".split(b"\n")`, `line.startswith(b"data:")`, `line.strip()`, `json.loads(line)`,
# `delta.get("content")`.


# %% nbgrader={"solution": true, "grade_id": "06-read_stream"}
def read_stream(chunks):
    """[(milliseconds, bytes), …] -> {"text": str, "ttft": ms or None, "tpot": ms or None}."""
    ### BEGIN SOLUTION
    rest, pieces, times, tokens = b"", [], [], 0
    for ms, data in chunks:
        *lines, rest = (rest + data).split(b"\n")  # what stands behind the last line end waits for more
        for line in map(bytes.strip, lines):
            payload = line.removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or payload == b"[DONE]":
                continue
            event = json.loads(payload)
            for choice in event.get("choices") or []:
                if piece := choice["delta"].get("content"):
                    pieces.append(piece)
                    times.append(ms)
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    tpot = (times[-1] - times[0]) / (tokens - 1) if times and tokens > 1 else None
    return {"text": "".join(pieces), "ttft": times[0] if times else None, "tpot": tpot}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "06-read_stream-check", "points": 4} tags=["raises-exception"]
check("06.read_stream", read_stream)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_06 import read_stream as hidden

hidden(read_stream)
### END HIDDEN TESTS

# %% [markdown]
# Passed? Then time the real thing: `read_stream(recorded)` in a cell of your own.
#
# ## One word that blocks a server
#
# **Question: what does everybody else do while one text is being generated?**
#
# This is the server you find on the web (with FastAPI, a package for web servers), and beside it the same one with the word
# `async` left out. A function with `async def` runs in the server's **event loop**: a single worker who serves all
# connections in turn, and goes on to the next one whenever a function says `await` ("I am waiting, take somebody else").
# `llm.generate` never says it. FastAPI hands a function without `async` to another worker (a **thread**), beside the loop.

# %%
predict(
    "06.blocked",
    "While one text of 24 tokens is being generated, five *health checks* arrive (“are you alive?”, answered at once). With "
    "`async def` around `llm.generate`, how many of the five are answered **before** the generation is done?",
    unit="health checks",
)

# %%
import httpx
from fastapi import FastAPI

app, answered = FastAPI(), []
long_text = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


@app.post("/found-on-the-web")
async def generate_in_the_loop(request: dict):
    text = llm.generate(request["prompt"], long_text)[0].outputs[0].text
    answered.append("generation")
    return {"text": text}


@app.post("/without-async")
def generate_in_a_thread(request: dict):
    text = llm.generate(request["prompt"], long_text)[0].outputs[0].text
    answered.append("generation")
    return {"text": text}


@app.get("/health")
async def health():
    answered.append("health check")
    return {"alive": True}


async def visit(path):
    """One generation and, right behind it, five health checks: how many were answered first?"""
    answered.clear()
    here = httpx.ASGITransport(app=app)  # straight into the application, no network
    async with httpx.AsyncClient(transport=here, base_url="http://here") as visitor:
        generation = visitor.post(path, json={"prompt": "def fib(n):"})
        await asyncio.gather(generation, *(visitor.get("/health") for _ in range(5)))
    return answered.index("generation")


blocked = {path: await visit(path) for path in ("/found-on-the-web", "/without-async")}
for path, first in blocked.items():
    print(f"{path:18} {first} of 5 health checks answered before the generation")
predict.compare("06.blocked", measured=blocked["/found-on-the-web"], unit="health checks")

# %% [markdown]
# Not one. For as long as one text takes, the first server is dead to everybody: no health check, no second user, no
# "stop". A program that waits for its health check may well restart it, in the middle of the answer. (This is an order
# of events, not a measurement of time: it comes out the same on the fastest machine.)
#
# A thread cures the deafness. It does not make the server *good*: two texts now run in two threads, each with forward passes
# of its own, instead of sharing them (lesson 04). So the course's server, and vLLM, do a third thing: the loop only takes
# requests and hands out tokens, **one** thread runs the engine, and between two passes it lets in who has come. That is
# continuous batching, and now we can watch it from outside.

# %% [markdown]
# ## ● Rising load
#
# **Question: how many users can one machine bear?**
#
# We send 1, 2, 4 … **users**: each asks, waits for the whole answer, and asks again. Two things are noted. The **clock** says
# how long they waited and how much was made. A **counter** of the server says how many forward passes it took. The engine
# does one pass for all texts that are under way. Guess the counter first.

# %%
predict(
    "06.passes",
    "16 answers of 16 tokens each are 256 tokens. One user at a time needs 256 forward passes. **8 users** at a time ask for "
    "the same 16 answers: about how many passes?",
    unit="passes",
)

# %%
from lessonlib.serving.bench import Settings, check_address, generated_prompts, measure
from lessonlib.serving.bench_report import Load

# Our server; or another *on this machine* whose address stood in LESSON_BASE_URL when Jupyter started.
other = os.environ.get("LESSON_BASE_URL")
target = check_address(other) if other else f"{server.url}/v1"
prompts = generated_prompts("code", (4, 8))  # endless, all different
TOKENS = 16


def passes_so_far():
    """Forward passes of the course's server since it started; None of another server."""
    lines = [] if other else get("/metrics").splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("lesson_steps ")), None)


async def send(load, requests, seconds=10):
    """Put a load on the server: what each request met, and how many passes they took together."""
    before = passes_so_far()
    settings = Settings(target, max_tokens=TOKENS, ignore_eos=True, requests=requests, seconds=seconds)
    run = await measure(settings, [load], prompts)
    # One request is sent first, alone and unmeasured; its passes are taken off again.
    passes = None if before is None else passes_so_far() - before - TOKENS
    return run.stages[0], passes


# %% [markdown]
# The numbers below are from one machine with two processor cores that had other things to do as well; yours will differ.
# TTFT and latency (the time of a whole answer) are means, in milliseconds.

# %% id="06-load" tags=["nbval-ignore-output"]
await send(Load(users=2), 2)  # warm up
log, rows = [], []
print("users   tokens/s   requests/s     TTFT  latency     passes  tokens a pass")
for users in (1, 2, 4, 8, 16, 24):
    stage, passes = await send(Load(users=users), requests=max(16, 2 * users))
    good = [record for record in stage.records if not record.error]
    made = sum(record.tokens for record in good)
    row = {
        "users": users,
        "speed": made / stage.seconds,
        "rate": len(good) / stage.seconds,
        "ttft": 1000 * mean(record.ttft for record in good),
        "latency": 1000 * mean(record.latency for record in good),
        "passes": passes,
        "together": made / passes if passes else float("nan"),
    }
    rows.append(row)
    log += [[users, 1000 * r.sent, 1000 * r.end, 200, r.tokens] for r in good]
    print(
        f"{users:5} {row['speed']:10.0f} {row['rate']:12.1f} {row['ttft']:8.0f} {row['latency']:8.0f} "
        f"{passes or float('nan'):10.0f} {row['together']:14.1f}"
    )
at_eight = next(row for row in rows if row["users"] == 8)
if at_eight["passes"]:
    predict.compare("06.passes", measured=int(at_eight["passes"]), unit="passes")

# %% [markdown]
# **The counter** is the continuous-batching effect, free of any clock. The first four lines make the same 256 tokens: with
# more users a pass makes more of them, up to eight, because this server was started with room for eight. (A little below
# eight: texts begin and end at different moments.)
#
# **The clock** agrees, but not one to one. A pass for eight takes longer than a pass for one, so eight users get several
# times the throughput, not eight times, and each of them waits longer than a lonely one.
#
# **Beyond eight** nothing more is made. Those who find no room wait in a **queue**, before their first token: look what
# happens to TTFT. A simple law holds at every load, whatever goes on inside (John Little, 1961):
#
# > users under way = requests a second × mean latency in seconds
#
# So once requests a second cannot grow, *every further user is paid for in waiting time, by all.*

# %% id="06-little" tags=["nbval-ignore-output"]
for row in rows:
    product = row["rate"] * row["latency"] / 1000
    print(
        f"{row['users']:3} users: {row['rate']:5.1f} requests/s × {row['latency'] / 1000:5.2f} s = {product:4.1f}"
    )

# %% [markdown]
# (Not exact: at the end of a measurement some users have gone home already, and the product is how many were under way on average, from the first request to the last answer.)
#
# ### The knee
#
# More users bring more throughput, which is good, and more latency, which is not. A usual compromise is the load at which
# **throughput ÷ latency** is highest (Leonard Kleinrock, 1979, called this *power*): up to there more users bring more than
# they cost. It is called the **knee** of the curve. There are other definitions; where a contract says "the first token
# within half a second", the right load is the largest that keeps the promise.

# %% id="06-curve" tags=["nbval-ignore-output"]
knee = max(rows, key=lambda row: row["speed"] / row["latency"])["users"]
loads = [row["users"] for row in rows]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for ax, key, style, colour, title in (
    (axes[0], "speed", "-o", "#0072B2", "tokens a second"),
    (axes[1], "latency", "--s", "#D55E00", "mean latency, ms"),
    (axes[2], "together", ":^", "#009E73", "tokens in a forward pass"),
):
    ax.plot(loads, [row[key] for row in rows], style, color=colour)
    ax.axvline(knee, color="#000000", linewidth=0.8, linestyle="-.")
    ax.annotate(f" knee: {knee} users", (knee, 0), (0, 6), textcoords="offset points", fontsize=8)
    ax.set(xlabel="users at a time", title=title, ylim=(0, None), xticks=loads[1:])
plt.show()

# %% [markdown]
# **To measure vLLM** with these same cells, start it as shown above, set `LESSON_BASE_URL=http://127.0.0.1:8001/v1` in the
# terminal from which you start Jupyter, and run the notebook again. (vLLM does not count its passes under our name, so
# those columns say `nan`.) In a terminal `lesson bench serve --base-url …` does the same and more; it refuses to put load
# on any machine but yours, unless you insist.
#
# ### Exercise 3 · `load_curve` (full track)
#
# `log` has a line for each request of such a measurement: `[users, sent, end, status, tokens]`. `users` is the load it
# belonged to; `sent` and `end` are milliseconds on one clock; `status` is 200 (answered) or 429 (refused: *too many
# requests*), and a refused one has 0 tokens. Lines stand in no particular order. Return `{"curve": …, "knee": …}`:
#
# - `curve`: a list `[users, throughput, latency]` for each load, the smallest first.
#   - `throughput`: tokens of all answers, divided by the *seconds* from the first `sent` to the last `end` of that load;
#   - `latency`: the mean of `end - sent` over the **answered** requests, in milliseconds;
# - `knee`: the number of users at which throughput ÷ latency is highest.
#
# (At every load at least one request is answered, and there are no ties.)


# %% nbgrader={"solution": true, "grade_id": "06-load_curve"}
def load_curve(log):
    """[[users, sent, end, status, tokens], …] -> {"curve": [[users, tokens/s, ms], …], "knee": users}."""
    ### BEGIN SOLUTION
    curve = []
    for users in sorted({line[0] for line in log}):
        lines = [line for line in log if line[0] == users]
        waits = [end - sent for _, sent, end, status, _ in lines if status == 200]
        seconds = (max(line[2] for line in lines) - min(line[1] for line in lines)) / 1000
        curve.append([users, sum(line[4] for line in lines) / seconds, sum(waits) / len(waits)])
    return {"curve": curve, "knee": max(curve, key=lambda row: row[1] / row[2])[0]}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "06-load_curve-check", "points": 3} tags=["raises-exception"]
check("06.load_curve", load_curve)
### BEGIN HIDDEN TESTS
from grader.checks.lesson_06 import load_curve as hidden

hidden(load_curve)
### END HIDDEN TESTS

# %% [markdown]
# The measurement above has left a `log` of this form: `load_curve(log)` is yours to try.
#
# ### Users who do not wait
#
# So far a slow server was spared: its users wait for the answer before they ask again, so that they ask less. (This is a
# **closed loop**.) The people of the internet do not know of each other. They come at *their* rate, whether the server keeps
# up or not: an **open loop**. Twice the same server, for two seconds: once at half of what it can do, once at two and a
# half times what it can do.

# %% id="06-open" tags=["nbval-ignore-output"]
most = max(row["rate"] for row in rows)
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for share, style, colour in ((0.5, "o", "#0072B2"), (2.5, "s", "#D55E00")):
    rate = share * most
    stage, _ = await send(Load(rate=rate), requests=int(2 * rate), seconds=2)
    good = [record for record in stage.records if not record.error]
    label = f"{rate:.0f} requests a second, {share:.0%} of what it can do"
    ax.plot([r.due for r in good], [r.latency for r in good], style, color=colour, label=label, markersize=4)
    half = len(good) // 2
    early, late = (mean(r.latency for r in part) for part in (good[:half], good[half:]))
    print(f"{label}: latency {early:.2f} s in the first half, {late:.2f} s in the second")
ax.set(xlabel="arrival, s", ylabel="latency, s", ylim=(0, None))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Below its limit the server answers the last as it answers the first. Beyond it the queue only grows: whoever comes later
# waits longer, **without end**, and no average over the run describes anything, because it depends on when you stop. A closed
# loop can never show this. So: measure with an open loop, stay *well* below the most
# requests a second that the server managed (at the knee it was at its limit already), and *refuse* what is too much (`429`, "come
# back later") rather than letting everybody wait. Lesson 07 does that.

# %% [markdown] nbgrader={"grade": true, "solution": true, "grade_id": "06-report", "points": 4}
# ### Exercise 4 · What did you measure? (full track, read by your instructor)
#
# Look at *your* table and plots and answer in five to ten sentences. One point for each:
#
# 1. **Throughput and latency.** How do they change from 1 to 8 users? Name the numbers.
# 2. **Why.** Explain the gain with the counter, not with the clock: what is shared, what is not?
# 3. **Beyond the limit.** What happens to TTFT from 8 to 24 users, and why does throughput not grow?
# 4. **A decision.** How many users would you allow on this server, what would you promise them, and which measurement is
#    missing before you sign?
#
# ### BEGIN SOLUTION
# **Model answer** (the numbers are those of the machine on which the lesson was written).
#
# 1. Throughput rises several times over, by less than eight; mean latency rises too, by less than the same factor eight. Both
#    numbers and their ratio are named.
# 2. The passes fall from 256 to about 40 for the same 256 tokens: one pass reads the weights once and makes a token for each
#    text under way. Not shared are the arithmetic for each token and its attention to its own KV cache, so a pass for eight
#    takes longer than one for one, and the gain is below eight.
# 3. The server has eight places; those beyond wait in the queue before their first token, so TTFT grows by about one answer's
#    time for each further eight users. Every place is taken already, so a pass makes no more tokens than before.
# 4. Any number at or below the knee with a promise that the table supports (for example a percentile, not a mean), refusals
#    beyond it, and a missing measurement such as: an open loop with the expected rate, real prompt and answer lengths,
#    percentiles over many more requests, a longer run, the real hardware.
# ### END SOLUTION

# %% [markdown]
# ## At the edge: one file
#
# **Question: what does the model need on somebody else's laptop?**
#
# No Python and no server. The usual form is **GGUF**: one file that holds the weights (quantized, if you like), the tokenizer
# and the chat template. **llama.cpp** runs it, a C++ program for almost any processor, and **Ollama**, which wraps it. The
# command is
#
# ```
# lesson export pico --to gguf --quantization q8_0
# ```
#
# `q8_0` and `q4_0` are GGUF's own formats: blocks of 32 weights with 8 or 4 bits each, and one scale for each block (lesson
# 03).

# %%
from lessonlib.export.gguf import export_gguf

edge = tempfile.TemporaryDirectory()  # gone with the notebook
files = {}
for kind in ("bf16", "q8_0", "q4_0"):
    done = export_gguf("pico", Path(edge.name) / f"pico-{kind}.gguf", kind)
    files[kind] = done.path
    bits = 8 * done.nbytes / llm.model.config.num_parameters
    print(
        f"{kind:5} {done.nbytes / 1e6:6.1f} MB   {bits:5.2f} bits for each of pico's parameters, all included"
    )

# %% [markdown]
# Look at the last column: the scales are in it, the tokenizer and its vocabulary, and with `q4_0` a table of embeddings
# that keeps 8 bits. With 10 million parameters the tokenizer counts; with 8 billion it does not.
#
# Now run it in llama.cpp. From Python that is `pip install llama-cpp-python`. (On the web you may find `ctransformers`
# instead. It is abandoned: its last version, 0.2.27, answers this very file with "Failed to create LLM".)

# %% id="06-llama" tags=["nbval-ignore-output"]
import importlib.util
import subprocess
import sys

from lessonlib import course

program = """
import sys
from llama_cpp import Llama

model = Llama(sys.argv[1], n_ctx=256, n_threads=2, verbose=False)
print(model(sys.argv[2], max_tokens=24, temperature=0)["choices"][0]["text"])
"""
python = Path(sys.executable)  # or, in a checkout of the course, what `make peers` has built
if not importlib.util.find_spec("llama_cpp"):
    python = (course.checkout() or Path()) / ".venv-peers" / "bin" / "python"

start = "def fib(n):\n    "
greedy = SamplingParams(temperature=0, max_tokens=24)
print("--- our engine", llm.generate(start, greedy)[0].outputs[0].text, sep="\n")
for kind, file in files.items():
    if not python.is_file():
        print(
            "llama-cpp-python is not installed (pip install llama-cpp-python), so the file is not run here."
        )
        break
    done = subprocess.run([python, "-c", program, file, start], capture_output=True, text=True, timeout=60)
    print(f"--- llama.cpp, {kind}", done.stdout.rstrip() or done.stderr[-200:], sep="\n")

# %% [markdown]
# Two engines that have not a line of code in common write the same text from the same weights; with 4 bits the text
# may change, as in lesson 03. For Ollama (a program of its own, not run here) the same file needs a file beside it called
# `Modelfile` with the line `FROM ./pico-q8_0.gguf`; then `ollama create pico -f Modelfile` and `ollama run pico`. Our client
# cell from above then works with `host="http://127.0.0.1:11434"`: one URL, again.
#
# ### How fast can a laptop be?
#
# A pass reads every weight once. How many bytes a second a machine can read is its **memory bandwidth**. So there is a
# limit that no program can beat with one token a pass: **memory bandwidth ÷ size of the model**. (Drafts, lesson 05, bring
# more tokens a pass.) For a model of 8 billion parameters, with the bandwidths from the makers' data sheets:

# %%
from lessonlib.explorers.pictures.roofline import CHIPS

formats = {"16 bits": 16, "q8_0": 8.5, "q4_0": 4.5}  # blocks of 32 with a 16-bit scale: half a bit more
sizes = {name: 8e9 * bits / 8 for name, bits in formats.items()}
print("8 billion parameters  " + "".join(f"{name:>12}" for name in formats))
print("size, GB              " + "".join(f"{size / 1e9:12.1f}" for size in sizes.values()))
for name, chip in CHIPS.items():
    fits = [
        f"{chip.bandwidth / size:8.0f} /s" if size < chip.memory else "no room" for size in sizes.values()
    ]
    print(f"{name:22}" + "".join(f"{text:>12}" for text in fits))

# %% [markdown]
# At most so many tokens a second ("/s"), *for one user*. A laptop is held back by its memory, so fewer bits make it faster in
# proportion, and that is why quantized files rule the edge. (Lesson 03 showed when that fails.) A card in a data centre is
# faster, and, more important, it reads the weights once for *many* users: that is the whole economy of the API you pay by the
# token. In the picture, raise the batch and see the time move from reading to computing.

# %% id="06-roofline"
explorers.roofline()

# %% [markdown]
# ## The four, side by side
#
# Dollars *a day*, by how much there is to do, at the example prices. A laptop makes 15 tokens a second here; where one machine
# is not enough, there are more (in brackets). The functions are those behind the first picture.

# %%
from lessonlib.explorers.pictures.deployment import EXAMPLES, cost, machines

rows_of_table = (("api", "1  hosted API"), ("server", "2, 3  own server"), ("computer", "4  edge: laptops"))
volumes = (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
print("new tokens a day   " + "".join(f"{tokens:>16,}" for tokens in volumes))
for place, name in rows_of_table:
    cells = []
    for tokens in volumes:
        dollars = cost(place, EXAMPLES, tokens) * tokens / 1e6
        count = "" if place == "api" else f"({machines(EXAMPLES[f'{place}_speed'], tokens):,}) "
        cells.append(f"{count}${dollars:,.2f}")
    print(f"{name:19}" + "".join(f"{cell:>16}" for cell in cells))

# %% [markdown]
# Small loads belong to the API: a server costs the same when nobody comes. From some point on the busy server wins, and it
# stays ahead when there are several. Laptops bought *for this* cost more than the API in every column; laptops that their
# owners have anyway cost their electricity. And a table of dollars leaves out the rest: that the laptop's model is a smaller
# one, that the API may change its model under you, that the server needs somebody to look after it, and who reads the texts.

# %% [markdown]
# ## What to be careful with
#
# **HTTP is not the problem.** People fear the detour over the network stack. Measure it before you optimise it: in Ollama's
# format the server says how long it worked on an answer, and we can time the same answer from outside.

# %% id="06-detour" tags=["nbval-ignore-output"]
asked = {"model": "pico", "prompt": start, "stream": False, "options": {"temperature": 0, "num_predict": 16}}
inside, outside = [], []
for _ in range(9):
    begin = perf_counter()
    inside.append(post("/api/generate", asked)["total_duration"] / 1e6)  # it counts in millionths of a ms
    outside.append(1000 * (perf_counter() - begin))
detours = [out - within for out, within in zip(outside, inside, strict=True)]
print(f"in the server: {median(inside):6.1f} ms  (medians of {len(inside)})")
print(f"from outside:  {median(outside):6.1f} ms")
print(f"the detour:    {median(detours):6.1f} ms  (median of the {len(detours)} differences)")

# %% [markdown]
# A few milliseconds, on the same machine. The way to another continent takes longer, and so does any real model.
#
# **A program of your own is rarely the answer.** vLLM has what our server has and years of work besides. Write your own when
# you need to *see* or *change* what happens inside, as in this course. Running either means updates, keys, logs and somebody
# who is woken at night; none of that is in the break-even.
#
# **Prices and speeds age.** The shapes do not: per token is flat, per hour falls with use, bought is bought.
#
# **Batching pays only if people come at the same time.** One user at a time gets nothing from it: look at your first row.
# That is the edge's case, and why a laptop's tokens each cost a full reading of the weights.
#
# **"At the edge" is not "safe".** No text leaves, but the model itself does: whoever has the file has the weights.
#
# Stop the server. (It would end with the notebook in any case, also with one that crashes.)

# %%
server.stop()
print("running:", server.process is not None)

# %% [markdown]
# ## Quiz

# %% nbgrader={"grade": true, "grade_id": "06-quiz", "points": 6}
quiz("06_deployment")
### BEGIN HIDDEN TESTS
from grader.keys import earned

earned("06_deployment")
### END HIDDEN TESTS

# %% [markdown]
# ## ● What you should be able to say now
#
# - An API costs by the token, a server by the hour, a laptop once. What decides is *how busy* the machine is.
# - OpenAI's, Anthropic's and Ollama's formats are three ways to write the same request; address, key and model name belong in
#   the configuration.
# - TTFT ends with the first *text*, not with the first byte.
# - A long computation inside `async def` stops the whole server, however fast the machine.
# - With load, throughput rises to a limit and latency goes on rising; the knee lies between. Beyond the limit an open loop
#   has no latency to quote, only a queue that grows.
# - With one token a pass, one user's speed is at most bandwidth ÷ model size; a GGUF file with fewer bits raises it.
#
# **Next:** lesson 07. The server is up and anybody can reach it. Who will abuse it, and how do you notice?
