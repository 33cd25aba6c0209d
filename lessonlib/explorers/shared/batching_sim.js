// Batching, step by step: lessonlib/engine's scheduler.py and simulator.py in the browser. No document needed.
// A test replays random traces through both and compares every step.

/** Seconds of one forward pass: the slower of computing its tokens and reading weights and KV cache (roofline). */
export const passTime = (cost, tokens, kvTokens) =>
  Math.max(cost.perToken * tokens, cost.fixed + cost.perKvToken * kvTokens);

const byArrival = (trace) => [...trace.keys()].sort((a, b) => trace[a].time - trace[b].time);
const total = (values) => values.reduce((sum, value) => sum + value, 0);

function timelineOf(trace, capacity) {
  return { trace, capacity, tokens: trace.map(() => []), steps: [] };
}

/** The scheduler of the engine, first come first served, without drafts, priorities and prefix cache. */
class ContinuousScheduler {
  constructor({ slots, budget, blocks, blockSize }) {
    Object.assign(this, { slots, budget, blockSize, free: blocks });
    this.waiting = []; // both in the order of arrival
    this.running = [];
  }

  blocksFor(tokens) {
    return Math.ceil(tokens / this.blockSize);
  }

  grow(request, tokens) {
    const missing = Math.max(0, this.blocksFor(tokens) - request.blocks);
    if (missing > this.free) return false;
    request.blocks += missing;
    this.free -= missing;
    return true;
  }

  release(request) {
    this.free += request.blocks;
    request.blocks = request.computed = 0;
  }

  /** Decide on a step: a list of {request, count} and the requests that lost their blocks for it. */
  schedule() {
    const inPrefill = (request) => request.computed < request.known - 1;
    const pending = [...this.running].sort((a, b) => inPrefill(a) - inPrefill(b) || a.rank - b.rank);
    const preempted = [];
    const parts = [];
    let budget = this.budget;
    const extend = (request) => {
      const count = Math.min(request.known - request.computed, budget);
      return this.grow(request, request.computed + count) ? { request, count } : null;
    };
    while (pending.length && budget) {
      const request = pending.shift();
      let part = extend(request);
      while (!part) {
        const victim = [request, ...pending].reduce((last, other) => (other.rank > last.rank ? other : last));
        this.preempt(victim);
        preempted.push(victim);
        if (victim === request) break;
        pending.splice(pending.indexOf(victim), 1);
        part = extend(request);
      }
      if (part) {
        parts.push(part);
        budget -= part.count;
      }
    }
    if (!preempted.length) parts.push(...this.admit(budget));
    return { parts, preempted: preempted.sort((a, b) => a.rank - b.rank) };
  }

  preempt(request) {
    this.running.splice(this.running.indexOf(request), 1);
    this.release(request);
    enqueue(this.waiting, request);
  }

  admit(budget) {
    const parts = [];
    while (this.waiting.length && budget && this.running.length < this.slots) {
      const request = this.waiting[0];
      // One block is left for everyone who runs: they may need it at the next step.
      if (this.blocksFor(request.known) + this.running.length > this.free) break;
      this.grow(request, request.known);
      this.waiting.shift();
      enqueue(this.running, request);
      const count = Math.min(request.known, budget);
      parts.push({ request, count });
      budget -= count;
    }
    return parts;
  }

  retire(request) {
    this.running.splice(this.running.indexOf(request), 1);
    this.release(request);
  }
}

function enqueue(queue, request) {
  const at = queue.findIndex((other) => other.rank > request.rank);
  queue.splice(at < 0 ? queue.length : at, 0, request);
}

/**
 * simulator.replay: continuous batching. `trace`: [{time, prompt, output}] (seconds, tokens, tokens).
 * `settings`: slots, budget (tokens of one step at most), blocks and blockSize of the KV pool. Every request must fit
 * into the pool by itself. Each step: start, end, ran ([request, tokens] pairs), computed, kvTokens (read by the
 * pass), waiting, blocks, preempted.
 */
export function replayContinuous(trace, settings, cost) {
  const scheduler = new ContinuousScheduler(settings);
  const timeline = timelineOf(trace, settings.slots);
  const order = byArrival(trace);
  let clock = -Infinity;
  let arrived = 0;
  while (arrived < order.length || scheduler.waiting.length + scheduler.running.length) {
    if (!(scheduler.waiting.length + scheduler.running.length))
      clock = Math.max(clock, trace[order[arrived]].time);
    for (; arrived < order.length && trace[order[arrived]].time <= clock; arrived++) {
      const place = order[arrived];
      scheduler.waiting.push({ place, rank: arrived, known: trace[place].prompt, computed: 0, blocks: 0 });
    }
    const { parts, preempted } = scheduler.schedule();
    const computed = total(parts.map((part) => part.count));
    const kvTokens = total(parts.map(({ request, count }) => request.computed + count));
    const end = clock + passTime(cost, computed, kvTokens);
    timeline.steps.push({
      start: clock,
      end,
      ran: parts.map(({ request, count }) => [request.place, count]),
      computed,
      kvTokens,
      waiting: scheduler.waiting.length,
      blocks: settings.blocks - scheduler.free,
      preempted: preempted.map((request) => request.place),
    });
    for (const { request, count } of parts) {
      const reachesEnd = request.computed + count === request.known;
      request.computed += count;
      if (!reachesEnd) continue;
      request.known += 1;
      timeline.tokens[request.place].push(end);
      if (timeline.tokens[request.place].length >= trace[request.place].output) scheduler.retire(request);
    }
    clock = end;
  }
  return timeline;
}

/** simulator.replay_static: whoever is there starts together, and the rest waits for the slowest. */
export function replayStatic(trace, { slots, blockSize }, cost) {
  const timeline = timelineOf(trace, slots);
  const order = byArrival(trace);
  const arrivedBy = (clock) => order.filter((place) => trace[place].time <= clock).length;
  let clock = -Infinity;
  let first = 0;
  while (first < order.length) {
    clock = Math.max(clock, trace[order[first]].time);
    const until = Math.min(arrivedBy(clock), first + slots);
    const batch = order.slice(first, until);
    first = until;
    const longest = Math.max(...batch.map((place) => trace[place].prompt));
    const last = Math.max(...batch.map((place) => trace[place].output));
    for (let step = 0; step < last; step++) {
      const active = batch.filter((place) => trace[place].output > step);
      const width = step ? 1 : longest;
      const kvTokens = batch.length * (longest + step);
      const end = clock + passTime(cost, batch.length * width, kvTokens);
      timeline.steps.push({
        start: clock,
        end,
        ran: active.map((place) => [place, step ? 1 : trace[place].prompt]),
        computed: batch.length * width,
        kvTokens,
        waiting: arrivedBy(clock) - first,
        blocks: Math.ceil(kvTokens / blockSize), // what its padded rows would fill
        preempted: [],
      });
      for (const place of active) timeline.tokens[place].push(end);
      clock = end;
    }
  }
  return timeline;
}

/**
 * Who sits where: for each step one cell for every request that ran, {slot, place, kind}, in the lowest slot that
 * was free. kind: "prompt", "answer", or "again" (tokens that had been computed before a preemption).
 */
export function cellsOf({ trace, steps, capacity, tokens }) {
  const seats = new Array(capacity).fill(null);
  const computed = trace.map(() => 0);
  const seen = trace.map(() => 0);
  let again = 0;
  const cells = steps.map(({ ran, preempted, end }) => {
    for (const place of preempted) {
      seats[seats.indexOf(place)] = null;
      computed[place] = 0;
    }
    const row = ran.map(([place, count]) => {
      if (!seats.includes(place)) seats[seats.indexOf(null)] = place;
      const start = computed[place];
      const twice = Math.max(0, Math.min(start + count, seen[place]) - start);
      again += twice;
      computed[place] = start + count;
      seen[place] = Math.max(seen[place], start + count);
      const kind = twice ? "again" : start < trace[place].prompt ? "prompt" : "answer";
      return { slot: seats.indexOf(place), place, kind };
    });
    for (const [place] of ran) if (tokens[place].at(-1) <= end) seats[seats.indexOf(place)] = null;
    return row;
  });
  return { cells, again };
}

/** The q-th percentile, linear between the two nearest values (numpy's default); null of nothing. */
export function percentile(values, q) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const at = ((sorted.length - 1) * q) / 100;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

/** What a timeline comes down to; times in seconds. The names are those of simulator.Timeline. */
export function measure(timeline) {
  const { trace, tokens, steps, capacity } = timeline;
  const begin = Math.min(...trace.map((request) => request.time));
  const end = Math.max(...tokens.map((times) => times.at(-1)));
  const idle = total(steps.map((step) => capacity - step.ran.length));
  const gaps = tokens.flatMap((times) => times.slice(1).map((time, i) => time - times[i]));
  return {
    ttft: tokens.map((times, i) => times[0] - trace[i].time),
    tpot: tokens
      .filter((times) => times.length > 1)
      .map((times) => (times.at(-1) - times[0]) / (times.length - 1)),
    latency: tokens.map((times, i) => times.at(-1) - trace[i].time),
    throughput: total(tokens.map((times) => times.length)) / (end - begin),
    idle,
    idleShare: idle / (capacity * steps.length),
    pause: Math.max(0, ...gaps),
    duration: end - begin,
    preemptions: total(steps.map((step) => step.preempted.length)),
    peak: Math.max(...steps.map((step) => step.blocks)),
  };
}

/** Blocks that the largest request needs in the end; the last token chosen is never run. */
export const blocksNeeded = (requests, blockSize) =>
  Math.max(...requests.map(({ prompt, output }) => Math.ceil((prompt + output - 1) / blockSize)));

/** All three policies on one trace. Arrivals count shortest possible steps; `cost` is that of the clock. */
export function simulate(requests, { slots, chunk, blocks }, { cost, blockSize, noLimit }) {
  const trace = requests.map(({ arrival, prompt, output }) => ({
    time: arrival * cost.fixed,
    prompt,
    output,
  }));
  const pool = { slots, blocks: Math.max(blocks, blocksNeeded(requests, blockSize)), blockSize };
  const runs = {
    static: replayStatic(trace, pool, cost),
    continuous: replayContinuous(trace, { ...pool, budget: noLimit }, cost),
    chunked: replayContinuous(trace, { ...pool, budget: chunk }, cost),
  };
  return Object.fromEntries(
    Object.entries(runs).map(([name, run]) => [name, { ...run, ...cellsOf(run), facts: measure(run) }]),
  );
}
