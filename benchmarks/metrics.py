"""The metrics against their peers: all pixel scores in one update, surface distances, clustering."""

from typing import Any

from benchmarks import _metrics_clustering, _metrics_pixelwise, _metrics_surface


def run() -> list[dict[str, Any]]:
    return [*_metrics_pixelwise.run(), *_metrics_surface.run(), *_metrics_clustering.run()]
