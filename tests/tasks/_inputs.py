"""What a TensorBoard log holds."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point of a TensorBoard log, by name."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
