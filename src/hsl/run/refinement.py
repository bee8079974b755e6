"""Refinement: the pseudo-labels of a round are what the segmentation trained on the round before predicts."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.config import DataError
from hsl.data.datamodule import DataModule
from hsl.data.decoding import Decoding
from hsl.data.label_table import LabelRow, check_origin, read_labels, read_page
from hsl.data.records import Record
from hsl.files import write_atomically
from hsl.pseudo_labels.judgement import Judgement
from hsl.pseudo_labels.refine import Decision, decide, drift, drift_plot
from hsl.pseudo_labels.store import LabelFolder, read_mask
from hsl.run.label_audit import write_label_audit
from hsl.tasks.segmentation import SegmentationTask

LOG, OSCILLATING = "refinement_log.json", "oscillating.json"
SOURCE = "segmentation"
SETTLED = 0.15


def refine_round(task: SegmentationTask, data: DataModule, previous: Path, output: Path) -> float:
    """Label the pictures of a folder anew by what a trained segmentation sees in them.

    The class is the most probable one, 255 where its probability is below the ``uncertain_below`` of the labelling; the
    probability is the confidence. Quality, rules and tiers are those of the labelling.

    Args:
        task: trained on the labels of ``previous``; left in eval mode.
        data: the pictures, prepared.
        previous: the labels before.
        output: a folder of the same layout, made anew. Beside the labels it holds ``refinement_log.json`` (all rounds
            so far), ``drift.json`` (of each picture), ``audit/drift.png``, and ``oscillating.json`` where the labels do
            not settle (the pictures that still change).

    Returns:
        The drift: changed pixels / pixels of all pictures.

    Raises:
        DataError: ``previous`` is no folder of labels, belongs to other data, or holds a picture that does not train.
    """
    page, table = read_page(previous), read_labels(previous)
    ids = [row.id for row in table.rows]
    check_origin(previous, page, ids, data.catalogue.classes, data.fold_assignment, data.fold)
    names = page["parameters"]["image_classes"]
    judgement = Judgement.of(page["rules"], page["tiers"], page["classes"], names)
    task = task.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    settings = {
        **{key: value for key, value in page.items() if key not in ("format", "created")},
        "round": page["round"] + 1,
        "sources": {SOURCE: 1.0},
        "weights_sha256": _sha256(task),
        "reviewed": page.get("reviewed", str(previous.resolve())),
    }
    folder = LabelFolder(output, settings, in_run=True)
    try:
        rows = {row.id: row for row in table.rows}
        records = [record for record in data.catalogue.records if record.id in rows]
        changed: dict[str, tuple[int, int]] = {}
        for name, mask, confidence in _predicted(task, data, records, page["uncertain_below"]):
            row = judgement.row(name, rows[name].label, mask, [SOURCE], rows[name].image)
            folder.add(row, mask, confidence)
            changed[name] = drift(read_mask(previous, name), mask)
        total = sum(n for n, _ in changed.values()) / sum(n for _, n in changed.values())
        write_label_audit(folder, data)
        _write_log(folder, previous, changed, total, settings["round"])
        folder.finish()
    finally:
        folder.close()
    return total


def next_round(drifts: Sequence[float]) -> bool:
    """Whether another round is to be made after those with these drifts.

    Example:
        >>> next_round([0.4]), next_round([0.4, 0.1])
        (True, False)
    """
    return decide(drifts) == Decision.AGAIN


def kept_round(folders: Sequence[Path], drifts: Sequence[float]) -> Path:
    """The labels to go on with once no further round is made.

    Args:
        folders: of the rounds 0 (before any refinement), 1, 2 ...
        drifts: of the rounds 1, 2 ...

    Raises:
        DataError: the labels do not settle.

    Example:
        >>> kept_round([Path("labels"), Path("round_1"), Path("round_2")], [0.3, 0.5]).name  # the drift grew
        'round_1'
    """
    decision = decide(drifts)
    if decision == Decision.OSCILLATING:
        raise DataError(
            f"Refined labels should change by less than {SETTLED:.0%} of the pixels in round {len(drifts)}. Found "
            f"{drifts[-1]:.1%}: they oscillate. `{folders[-1] / OSCILLATING}` lists the pictures; correct or remove "
            "them, or train without refinement."
        )
    return folders[len(drifts) - (decision == Decision.DIVERGED)]


@torch.inference_mode()
def _predicted(
    task: SegmentationTask, data: DataModule, records: Sequence[Record], uncertain_below: float
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Id, mask and confidence at the size of the source, by the path that ``predict`` takes."""
    for batch in data.predict_dataloader(records, Decoding.of(data.catalogue)):
        batch["image"] = batch["image"].to(task.device)
        logits = task.predict(data.on_after_batch_transfer(batch, 0))[data.head]
        for i, (name, (height, width)) in enumerate(zip(batch["id"], batch["size"].tolist(), strict=True)):
            confidence, best = logits[i, :, :height, :width].softmax(dim=0).max(dim=0)
            mask = torch.where(confidence < uncertain_below, IGNORE_INDEX, best)
            yield name, mask.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy()


def _write_log(
    folder: LabelFolder, previous: Path, changed: dict[str, tuple[int, int]], total: float, number: int
) -> None:
    """The log of all rounds, the drift of each picture, and the plot."""
    earlier: list[dict[str, Any]] = []
    if (previous / LOG).is_file():
        earlier = json.loads((previous / LOG).read_text(encoding="utf8"))
    drifts = [*(one["drift"] for one in earlier), total]
    decision = decide(drifts)
    rows: list[LabelRow] = list(folder.rows.values())
    entry = {
        "round": number,
        "previous": str(previous),
        "drift": total,
        "decision": str(decision),
        "pictures": len(changed),
        "tiers": dict(sorted(Counter(row.tier for row in rows).items())),
    }
    shares = {name: n / size for name, (n, size) in sorted(changed.items())}
    pages: dict[str, Any] = {LOG: [*earlier, entry], "drift.json": {"drift": total, "pictures": shares}}
    if decision == Decision.OSCILLATING:
        moving = sorted((name for name, share in shares.items() if share > SETTLED), key=lambda name: -shares[name])
        pages[OSCILLATING] = {name: shares[name] for name in moving}
    for name, page in pages.items():
        write_atomically(folder.work / name, json.dumps(page, indent=1, ensure_ascii=False).encode())
    drift_plot(folder.audit / "drift.png", drifts, title=f"{number} round{'s' if number > 1 else ''} of refinement")


def _sha256(task: SegmentationTask) -> str:
    """Of all weights: labels of other weights are other labels."""
    digest = hashlib.sha256()
    for name, tensor in task.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
