"""What `hsl predict gate=` adds: a verdict for every picture. Nothing is held back, and nothing ends otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hsl.batch import Outputs
from hsl.data.splits.grouping import name_some
from hsl.exporting.gate import Gate
from hsl.exporting.generic_encoder import FrozenEncoder
from hsl.files.io import sha256_of
from hsl.heads import Head
from hsl.run_folder.layout import best_checkpoint
from hsl.verbs.ensemble.predicting import EnsembleModel
from hsl.verbs.predict.outputs import RunModel, prediction_of

GATE_TABLE = "gate.csv"


@dataclass(frozen=True, eq=False)
class Gating:
    """A gate over the pictures of one call.

    Attributes:
        gate: opened.
        encoder: its own.
        heads: of the model that predicts.
        thresholds: of its image heads.
        others: what is said of a model that the gate was not calibrated with; empty of its own.
        rows: a verdict each.
    """

    gate: Gate
    encoder: FrozenEncoder
    heads: Mapping[str, Head]
    thresholds: Mapping[str, Sequence[float]]
    others: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, model: RunModel | EnsembleModel) -> "Gating":
        """The gate of a folder, for a model.

        Args:
            folder: that `hsl gate` wrote.
            model: that predicts.

        Raises:
            DataError: the folder holds no gate, or the model has other classes.
        """
        gate = Gate.read(folder)
        gate.check_classes(model.heads)
        others = _others(gate, {sha256_of(best_checkpoint(run.folder)) for run in model.runs})
        return cls(gate, FrozenEncoder.open(folder, gate), model.heads, model.thresholds, others)

    def judge(self, name: str, outputs: Outputs, image: NDArray[np.uint8]) -> None:
        """Keep the verdict of a picture, from its logits and itself."""
        said = prediction_of(outputs, self.heads, self.thresholds)
        verdict = self.gate.judge(said, self.encoder.features(image))
        word = "accepted" if verdict.accepted else "rejected"
        self.rows.append({"id": name, "verdict": word, "reasons": " ".join(verdict.reasons), **verdict.scores})

    @property
    def table(self) -> pd.DataFrame:
        """Of `GATE_TABLE`."""
        return pd.DataFrame(self.rows)

    def sentences(self) -> list[str]:
        """What is said in the end."""
        refused = [f"`{row['id']}`" for row in self.rows if row["verdict"] == "rejected"]
        told = [self.others] if self.others else []
        if refused:
            told.append(
                f"The gate refuses {len(refused)} of {len(self.rows)} pictures: {name_some(refused)}. They were done "
                f"all the same; {GATE_TABLE} marks them and says why."
            )
        return told


def _others(gate: Gate, checkpoints: set[str]) -> str:
    """What is said where the model is not the one, or not all of those, that the gate was calibrated with."""
    strange = checkpoints - {digest for model in gate.models for digest in model.checkpoints.values()}
    lacking = [one.name for one in gate.models if not checkpoints & set(one.checkpoints.values())]
    if not (strange or lacking):
        return ""
    named = ", ".join(one.name for one in gate.models)
    which = "another" if strange else f"without {', '.join(lacking)}"
    return (
        f"The gate was calibrated with {named}, and this model is {which}: how many real pictures it refuses was not "
        "measured."
    )
