"""What /metrics shows, in Prometheus' text format; a registry of its own for each server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .engine import AsyncEngine, Generation

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Histograms and counters of finished work, gauges of what is going on. ``watch`` an engine to fill them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"lesson_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"lesson_{name}_seconds", text, buckets=buckets, registry=registry)

        self.http = counter("http_requests", "Answers.", "route", "status")
        self.rejections = counter("rejections", "Requests refused.", "reason")
        self.suspicions = counter("suspicions", "Doubts of a guard that let the request pass.", "guard")
        self.findings = counter("findings", "What the output filter found.", "kind")
        self.finished = counter("sequences_finished", "Sequences by how they ended.", "reason")
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self.prefix_hits = counter("prefix_hit_tokens", "Tokens of prompts found in the KV cache.")
        self.output_tokens = counter("output_tokens", "Tokens generated.")
        self.preemptions = counter("preemptions", "Times a sequence lost its KV blocks to others.")
        self.drafted = counter("drafted_tokens", "Tokens guessed by speculation.")
        self.accepted = counter("accepted_tokens", "Guessed tokens that stood.")
        self.first = histogram("time_to_first_token", "From the request to its first token.", SLOW)
        self.per_token = histogram("time_per_output_token", "Average after the first token.", FAST)
        self.whole = histogram("request_duration", "From the request to its last token.", SLOW)

    def watch(self, engine: AsyncEngine) -> None:
        scheduler, pool = engine.scheduler, engine.scheduler.pool
        for name, text, value in (
            ("running", "Sequences that run.", lambda: len(scheduler.running)),
            ("waiting", "Sequences in the queue.", lambda: len(scheduler.waiting)),
            ("kv_blocks_in_use", "KV blocks held by sequences.", lambda: engine.blocks_in_use),
            ("kv_blocks", "KV blocks there are.", lambda: pool.num_blocks),
            ("steps", "Forward passes so far.", lambda: scheduler.steps),
            ("failed_steps", "Steps that ended with an exception so far.", lambda: engine.failed_steps),
        ):
            Gauge(f"lesson_{name}", text, registry=self.registry).set_function(value)

    def ended(self, generation: Generation) -> None:
        """Count a generation that is over."""
        usage = generation.usage
        for request in generation.requests:
            self.finished.labels(request.finish_reason or "refused").inc()
            self.preemptions.inc(request.preemptions)
            self.drafted.inc(request.drafted)
            self.accepted.inc(request.accepted)
            if times := request.times:
                self.first.observe(times[0] - generation.opened)
                self.whole.observe(times[-1] - generation.opened)
                if len(times) > 1:
                    self.per_token.observe((times[-1] - times[0]) / (len(times) - 1))
        if any(request.times for request in generation.requests):
            self.prompt_tokens.inc(usage.prompt_tokens)
            self.prefix_hits.inc(usage.cached_tokens)
            self.output_tokens.inc(usage.completion_tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
