"""What a server counts for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)


class Meters:
    """All counters of an application. Another one in the same process has its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "nanogpt_requests",
            "Completion requests, by how they ended",
            ["outcome"],
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "nanogpt_prompt_tokens", "Tokens of prompts", registry=registry
        )
        self.generated = Counter(
            "nanogpt_generated_tokens", "Tokens that were generated", registry=registry
        )
        self.first_token = Histogram(
            "nanogpt_first_token_seconds",
            "Time from a request to its first token",
            buckets=SECONDS,
            registry=registry,
        )
        self.running = Gauge(
            "nanogpt_batch_size", "Sequences that are generated together", registry=registry
        )
        self.waiting = Gauge("nanogpt_waiting", "Sequences in the queue", registry=registry)
        self.models = Gauge("nanogpt_models_loaded", "Models in memory", registry=registry)
        self.model_bytes = Gauge(
            "nanogpt_models_bytes", "Memory of the models in memory", registry=registry
        )
