"""The gate inside of an artefact: its files, its encoder as a graph, and whether it says what it says in torch."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hsl.errors import UserError
from hsl.exporting.gate import FEATURES, GATE
from hsl.exporting.graph import write_features
from hsl.exporting.manifest import GATE_ENCODER, GATE_FOLDER
from hsl.exporting.prediction import Prediction
from hsl.exporting.runner import Runner
from hsl.verbs.predict.gated import Gating

MOST_FEATURES = 1e-3
"""Length of the difference of two features, as a share of their length."""
RULES = {"gate_features": MOST_FEATURES, "gate_verdict": "the same"}
_WAY_OUT = "Nothing was written. Make a gate with another `encoder`, or export without `gate`."


def write_gate(source: Path, gating: Gating, artefact: Path) -> None:
    """Copy a gate into an artefact, and write its encoder as ONNX beside it.

    Args:
        source: that `hsl gate` wrote.
        gating: the same, opened for the model.
        artefact: folder, without a gate.

    Raises:
        ConfigError: the encoder cannot be exported.
    """
    folder = artefact / GATE_FOLDER
    folder.mkdir()
    for name in (GATE, FEATURES):
        shutil.copyfile(source / name, folder / name)
    facts = gating.gate.encoder
    write_features(gating.encoder.network, facts.height, facts.width, folder / GATE_ENCODER)


def compare_gate(
    gating: Gating, runner: Runner, image: NDArray[np.uint8], ours: Prediction, theirs: Prediction
) -> dict[str, Any]:
    """What the gate says of a picture with torch, and in the artefact.

    Args:
        gating: the gate as `hsl predict gate=` opens it.
        runner: of the artefact, with the gate in it.
        image: ``(H, W, 3)``.
        ours: what `hsl predict` says of it.
        theirs: what the artefact says.
    """
    features, again = gating.encoder.features(image), cast(Any, runner.features)(image)
    length = max(float(np.linalg.norm(features)), float(np.finfo(np.float32).tiny))
    verdicts = [gating.gate.judge(ours, features), runner.judge(image, theirs)]
    words = ["accepted" if verdict and verdict.accepted else "rejected" for verdict in verdicts]
    difference = float(np.linalg.norm(features - again)) / length
    return {"features": float(f"{difference:.4g}"), "torch": words[0], "artefact": words[1]}


def check_gate(where: str, row: Mapping[str, Any]) -> None:
    """Refuse a gate that says something else in the artefact.

    Args:
        where: the picture, for people.
        row: of `compare_gate`.

    Raises:
        UserError: the features differ by more than the rule, or the verdicts do.
    """
    if not row["features"] <= MOST_FEATURES:
        raise UserError(
            f"{where} should have the features of the gate's encoder in torch, to {MOST_FEATURES:g} of their length. "
            f"Found a difference of {row['features']:.3g}. {_WAY_OUT}"
        )
    if row["torch"] != row["artefact"]:
        raise UserError(
            f"{where} should be {row['torch']} by the gate, as `hsl predict gate=` says. Found that the artefact says "
            f"{row['artefact']}. {_WAY_OUT}"
        )
