"""What an evaluation leaves of a dense head: scores, a row per picture, the counts that all are made from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hsl.callbacks.evaluation import PartResult
from hsl.metrics.catalogue import score_names
from hsl.metrics.pixels.formulas import STATES, add_states, confusion_scores, dice_empty_one, pixel_scores
from hsl.run_folder.stored_counts import Pictures
from hsl.verbs.scoring.class_maps import class_map_path


def dense_scores(result: PartResult, classes: Sequence[str]) -> dict[str, Any]:
    """Every score of a part, pooled over its pictures, and its confusion matrix."""
    counts = add_states(result.counts)
    confusion = counts["matrices"].sum(axis=0)
    table = confusion_scores(confusion)
    per_class = {
        name: {key: float(table[key][i]) for key in score_names("pixels", "confusion", per_class=True)}
        | {"pixels": int(confusion[i].sum())}
        for i, name in enumerate(classes)
    }
    empty_one, of_nothing = dice_empty_one(np.stack([each["matrices"].sum(axis=0) for each in result.counts]))
    return {
        "num_images": len(result.ids),
        **pixel_scores(counts),
        "dice_empty_one": empty_one,
        "dice_empty_one_predicting_nothing": of_nothing,
        "classes_scored": int(table["classes_scored"]),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def image_rows(
    part: str, inference: str, result: PartResult, classes: Sequence[str], group: Callable[[str], str], kept: bool
) -> list[dict[str, Any]]:
    """One row per picture: its own scores, over its classes; ``kept``: its class map is in the folder."""
    rows = []
    for name, counts, confidence in zip(result.ids, result.counts, result.confidences, strict=True):
        table = confusion_scores(counts["matrices"].sum(axis=0))
        rows.append(
            {"id": name, "group": group(name), "part": part, "inference": inference}
            | {"prediction": class_map_path(part, inference, name).as_posix() if kept else ""}
            | {"confidence": confidence, "valid_pixels": int(counts["matrices"].sum())}
            | pixel_scores(counts)
            | {f"iou/{label}": float(table["iou"][i]) for i, label in enumerate(classes)}
        )
    return rows


def pixel_counts(results: Sequence[tuple[str, str, PartResult]]) -> dict[tuple[str, str], Pictures]:
    """Everything a pixel score can be recomputed from, picture by picture."""
    return {
        (part, inference): Pictures(
            result.ids, {name: np.stack([counts[name] for counts in result.counts]) for name in STATES}
        )
        for part, inference, result in results
    }
