"""The metrics against their peers: surface distances and clustering."""

from typing import Any

from benchmarks import _metrics_clustering, _metrics_surface


def run() -> list[dict[str, Any]]:
    return [*_metrics_surface.run(), *_metrics_clustering.run()]
