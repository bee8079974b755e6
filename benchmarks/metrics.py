"""The metrics against their peers: all pixel scores in one update, surface distances, clustering."""

from typing import Any

from benchmarks import _metrics_objects, _metrics_pixelwise


def run() -> list[dict[str, Any]]:
    return [*_metrics_pixelwise.run(), *_metrics_objects.surface_rows(), *_metrics_objects.clustering_rows()]
