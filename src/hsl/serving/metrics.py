"""Counts and times of the server as Prometheus reads them."""

from hsl.serving.dispatcher import Dispatcher

PATHS = ("/predict", "/segment", "/model", "/metrics", "/openapi.json", "/health", "/ready", "/")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What is counted. Paths that do not exist count as one, so that a stranger cannot fill the memory with names.

    Args:
        dispatcher: whose queue and batches are shown.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest  # an extra

        self._registry = registry = CollectorRegistry()
        self._written = generate_latest
        self._requests = Counter("hsl_requests", "Requests", ["path", "status"], registry=registry)
        self._seconds = Histogram("hsl_request_seconds", "Seconds of a request", ["path"], registry=registry,
                                  buckets=_SECONDS)  # fmt: skip
        counts = dispatcher.statistics
        shown = {
            "hsl_queue_length": ("Questions that wait", lambda: dispatcher.waiting),
            "hsl_ready": ("Whether the model answers", lambda: dispatcher.ready),
            "hsl_batches": ("Batches that were computed", lambda: counts.batches),
            "hsl_batched_pictures": ("Pictures in them", lambda: counts.batched),
            "hsl_lost_workers": ("Processes of the model that ended unasked", lambda: counts.lost_workers),
            "hsl_reloads": ("Times the model was opened anew", lambda: counts.reloads),
        }
        for name, (text, value) in shown.items():
            Gauge(name, text, registry=registry).set_function(value)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = path if path in PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def text(self) -> bytes:
        """The text of `/metrics`."""
        return bytes(self._written(self._registry))
