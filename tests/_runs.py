"""Run folders with known confusion matrices, written by what writes those of a training."""

import csv
import hashlib
import io
import json
from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hsl.files.io import null_for_nan
from hsl.files.row_file import RowFile
from hsl.files.split_file import Split, write_split
from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.failures import object_failures
from hsl.metrics.objects.panoptic import panoptic_counts
from hsl.metrics.objects.surface import surface_distances
from hsl.metrics.pixels.formulas import add_states, pixel_scores
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.metrics.pool.worker import encode, json_ready
from hsl.reports.page import pictures
from hsl.run_folder import layout
from hsl.run_folder.history import append_step, read_history, write_history
from hsl.run_folder.pictures import class_names, write_image_predictions, write_images
from hsl.run_folder.provenance import write_audit, write_config, write_provenance
from hsl.run_folder.scores import write_metrics
from hsl.run_folder.stored_counts import Pictures, write_pixel_counts

CLASSES = ["background", "crack", "stain"]


def confusion_of(correct, wrong):
    """Two classes with pixels: ``correct`` on the diagonal, ``wrong`` cracks taken for background."""
    return [[correct, 0, 0], [wrong, correct, 0], [0, 0, 0]]


def scores(confusion, num_images):
    matrix = np.array(confusion, dtype=float)
    hits, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = [h / u if u else None for h, u in zip(hits, union, strict=True)]
    known = [value for value in iou if value is not None]
    return {
        "num_images": num_images,
        "miou": sum(known) / len(known),
        "classes_scored": len(known),
        "confusion": confusion,
    }


def split_of(num_folds=3, per_fold=4, prefix="p"):
    ids = [[f"{prefix}{fold}_{i}" for i in range(per_fold)] for fold in range(num_folds)]
    folds = [
        {
            "name": str(fold),
            "train": sorted(name for other in range(num_folds) if other != fold for name in ids[other]),
            "val": ids[fold],
        }
        for fold in range(num_folds)
    ]
    sha256 = hashlib.sha256(prefix.encode()).hexdigest()
    return {"method": "kfold", "seed": 0, "groups": "group", "folds": folds, "test": [], "sha256": sha256}


def image_rows(split, fold, offset=0.0, part="val"):
    """Per-image mIoU: 0.5 plus the offset plus a little that depends on the picture alone."""
    ids = split["folds"][fold]["val"] if part == "val" else split["test"]
    return [(name, f"g{name[:-1]}{i // 2}", 0.5 + offset + 0.01 * i) for i, name in enumerate(ids)]


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, encoder, fold, confusion, ...)`` writes one run folder below ``tmp_path/outputs``."""
    return run_maker(tmp_path)


def run_maker(tmp_path):
    def make(
        name="a",
        encoder="resnet50",
        fold=0,
        confusion=None,
        tta=None,
        test=None,
        seed=0,
        status="finished",
        source="random",
        split=None,
        rows=None,
        config=None,
        provenance=None,
        time="2026-01-01_00-00-00",
    ):
        folder = tmp_path / "outputs" / name / f"fold{fold}" / f"{time}-s{seed}"
        folder.mkdir(parents=True)
        content = {"name": name, "fold": fold, "seed": seed, "encoder": {"name": encoder}, "lr": 0.001}
        write_config(folder, OmegaConf.create({**content, **(config or {})}))
        split = split_of() if split is None else split
        facts = {
            "status": status,
            "started": time,
            "wall_time_s": 61.0,
            "split_sha256": split["sha256"],
            "weights_used": {"source": source, "sha256": None if source == "random" else "ab" * 32},
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "command": f"train.py encoder={encoder} fold={fold}",
        }
        write_provenance(folder, {**facts, **(provenance or {})})
        write_split(folder / layout.SPLITS, Split.from_json(json.dumps(split), "split"))
        write_curves(folder, [0.3, 0.5], [1.0, 0.8])
        if status == "finished":
            write_scores(folder, split, fold, confusion or confusion_of(50, 50), tta, test, rows)
        return folder

    return make


def write_curves(folder, miou, loss):
    """The history of as many epochs; the loss on the validation part is larger by 0.1."""
    rows = [
        {"epoch": epoch, "lr": 0.001, "train/loss": loss[epoch], "val/loss": loss[epoch] + 0.1, "val/miou": value}
        for epoch, value in enumerate(miou)
    ]
    write_history(folder / layout.HISTORY, rows)


def stored_metrics(folder):
    return json.loads((folder / layout.METRICS).read_text())


def write_scores(folder, split, fold, confusion, tta, test, rows):
    parts = {"val": {"plain": scores(confusion, len(split["folds"][fold]["val"]))}}
    if tta is not None:
        parts["val"]["tta"] = scores(tta, len(split["folds"][fold]["val"]))
    if test is not None:
        parts["test"] = {"plain": scores(test, 2)}
    page = {
        "monitor": {"name": "val/miou", "mode": "max", "value": 0.5, "epoch": 1},
        "classes": CLASSES,
        "task_classes": {},
        "image_classes": {},
        "parts": parts,
    }
    write_metrics(folder, page)
    where = {"part": "val", "inference": "plain", "pixel_accuracy": 0.9, "confidence": 0.8}
    given_rows = image_rows(split, fold) if rows is None else rows
    if given_rows:
        write_images(folder, [{"id": name, "group": group, "miou": miou, **where} for name, group, miou in given_rows])
    ids = {"val": split["folds"][fold]["val"], "test": split["test"] or ["t0", "t1"]}
    given = {("val", "plain"): confusion, ("val", "tta"): tta, ("test", "plain"): test}
    write_counts(folder, {key: (ids[key[0]], matrix) for key, matrix in given.items() if matrix is not None})


def counts_of(confusion, num_pictures):
    """Pixel counts of pictures that add up to a confusion matrix.

    A quarter of each cell lies near a contour; right pixels are sure (0.97), wrong ones less so (0.63).
    """
    confusion = np.array(confusion, dtype=np.int64)
    extra = confusion % num_pictures
    shares = [confusion // num_pictures + (i < extra) for i in range(num_pictures)]
    near = [share // 4 for share in shares]
    right = np.array([share.trace() for share in shares], dtype=np.int64)
    wrong = np.array([share.sum() for share in shares], dtype=np.int64) - right
    pixels = np.zeros((num_pictures, 2, 15), dtype=np.int64)
    pixels[:, 1, 14], pixels[:, 0, 9] = right, wrong
    confidence = np.zeros((num_pictures, 15))
    confidence[:, 14], confidence[:, 9] = 0.97 * right, 0.63 * wrong
    both, true, predicted = ([f(m) for m in near] for f in (np.diag, lambda m: m.sum(1), lambda m: m.sum(0)))
    return {
        "matrices": np.stack([[share - band, band] for share, band in zip(shares, near, strict=True)]),
        "boundaries": np.stack([true, both, true, both, predicted, predicted, both], axis=1),
        "pixels": pixels,
        "confidence": confidence,
        "nll": 0.03 * right + 1.5 * wrong,
        "brier": 0.01 * right + 0.9 * wrong,
    }


def write_counts(folder, parts, name=layout.PIXEL_COUNTS):
    """``parts`` maps (part, inference) to ids and the confusion matrix they add up to."""
    counted = {on: Pictures(ids, counts_of(matrix, len(ids))) for on, (ids, matrix) in parts.items()}
    write_pixel_counts(folder / name, counted)


@pytest.fixture
def add_tasks():
    """``add_tasks(folder, {"genus": 0.8}, fold=0)``: tasks of two classes, of whose 100 pixels a share is right.

    The rest of the second class is taken for the first. The validation curves end at half of that share.
    """

    def add(folder, right, fold=0, split=None, part="val"):
        page = stored_metrics(folder)
        ids = (split or split_of())["folds"][fold]["val"] if part == "val" else ["t0", "t1"]
        for task, share in right.items():
            hits = round(100 * share)
            confusion = [[100, 0], [100 - hits, hits]]
            write_counts(folder, {(part, "plain"): (ids, confusion)}, layout.task_counts(task))
            page.setdefault("task_classes", {})[task] = ["none", task]
            page["parts"][part]["plain"].setdefault("tasks", {})[task] = scores(confusion, len(ids))
        write_metrics(folder, page)
        epochs = [dict(row) for row in read_history(folder)]
        for task, share in right.items():
            for row, value in zip(epochs, np.linspace(0.1, share / 2, len(epochs)), strict=True):
                row[f"val/miou/{task}"] = value
        write_history(folder / layout.HISTORY, epochs)
        return folder

    return add


LEAF = ["healthy", "miner", "rust"]


def guesses(names, skill, several, classes):
    """Targets and probabilities that follow from the names of the pictures; the skill is the share of right ones."""
    targets, probabilities = [], []
    for name in names:
        rng = np.random.default_rng([*name.encode()])
        shown = rng.random(len(classes)) < 0.5 if several else np.arange(len(classes)) == rng.integers(len(classes))
        sure = rng.random(len(classes)) * 0.3
        right = np.random.default_rng([*name.encode(), 7]).random() < skill
        seen = shown if right else np.roll(shown, 1) if not several else ~shown
        found = np.where(seen, 1 - sure, sure)
        targets.append(shown.astype(np.float32) if several else int(shown.argmax()))
        probabilities.append(found if several else found / found.sum())
    return np.array(targets), np.array(probabilities)


@pytest.fixture(scope="session")
def add_image_head():
    """``add_image_head(folder, fold, skill)``: an image head beside the dense one, or instead of it (``dense=False``).

    ``given`` are targets and probabilities instead of made-up ones, ``unknown`` ids without a label.
    """

    def add(
        folder,
        fold=0,
        skill=0.8,
        several=False,
        dense=True,
        split=None,
        part="val",
        classes=LEAF,
        given=None,
        unknown=(),
    ):
        page = stored_metrics(folder)
        ids = (split or split_of())["folds"][fold]["val"] if part == "val" else ["t0", "t1"]
        targets, probabilities = given or guesses(ids, skill, several, classes)
        known = np.array([name not in unknown for name in ids])
        limits = [0.5] * len(classes) if several else None
        found = image_scores(probabilities[known], targets[known], limits)
        per_class = found.pop("per_class")
        stored = {"kind": "multi" if several else "single", **found}
        stored |= {} if several else {"confusion": found["confusion"].tolist()}
        stored["per_class"] = {
            name: {score: float(values[i]) for score, values in per_class.items()} for i, name in enumerate(classes)
        }
        stored |= {"thresholds": dict.fromkeys(classes, 0.5)} if several else {}
        if not dense:
            page |= {"classes": [], "parts": {part: {"plain": {}}}}
            page["monitor"] = {"name": "val/accuracy", "mode": "max", "value": 0.5, "epoch": 1}
            for name in (layout.PIXEL_COUNTS, layout.PER_IMAGE):
                (folder / name).unlink(missing_ok=True)
            rows = [{"epoch": 0, "phase": "A", "val/accuracy": 0.3}, {"epoch": 1, "phase": "B", "val/accuracy": 0.5}]
            write_history(folder / layout.HISTORY, rows)
        page["image_classes"] = {"classification": list(classes)}
        page["parts"].setdefault(part, {}).setdefault("plain", {})["image_heads"] = {"classification": stored}
        write_metrics(folder, null_for_nan(page))
        path = folder / layout.IMAGE_PREDICTIONS
        rows = list(csv.DictReader(io.StringIO(path.read_text()))) if path.is_file() else []
        for name, target, one, is_known in zip(ids, targets, probabilities, known, strict=True):
            truth = target == 1 if several else np.arange(len(classes)) == target
            guess = one >= 0.5 if several else np.arange(len(classes)) == one.argmax()
            row = {"id": name, "group": f"g{name[:-1]}{int(name[-1]) // 2}", "part": part, "inference": "plain"}
            row |= {"head": "classification", "target": class_names(truth, classes) if is_known else None}
            row |= {"prediction": class_names(guess, classes), "loss": 0.1}
            row["correct"] = int((truth == guess).all()) if is_known else None
            rows.append(row | {f"probability/{each}": p for each, p in zip(classes, one, strict=True)})
        write_image_predictions(folder, rows)
        return folder

    return add


@pytest.fixture
def add_weighting():
    """``add_weighting(folder, {"genus": 3.0}, {("genus", "health"): [0.5, -0.2]})``: 40 logged steps.

    A norm is the median of norms that vary by a tenth; the cosines of a pair are repeated until the last step.
    """

    def add(folder, norms=(), cosines=(), failures=0, num_steps=40, objectives=("genus", "health")):
        for i in range(num_steps):
            step = 10 * (i + 1)
            line = {f"weight/{name}": 1 + 0.01 * i * k for k, name in enumerate(objectives)}
            if norms:
                line |= {"solver_failures": min(i, failures), "steps": step, "degraded": 0.0}
                line |= {f"norm/{name}": value * (0.9, 1.0, 1.1)[i % 3] for name, value in dict(norms).items()}
            line |= {f"cosine/{a}/{b}": values[i % len(values)] for (a, b), values in dict(cosines).items()}
            append_step(folder / layout.WEIGHTING, step, i // 4, line)
        return folder

    return add


def masks_of(i, shift):
    """A crack and two stains, and a prediction that is off by ``shift``, joins the stains and adds a spot."""
    target = np.zeros((24, 32), dtype=np.uint8)
    target[2 + i : 5 + i, 2:20], target[14:18, 2:6], target[14:18, 8:12] = 1, 2, 2
    prediction = np.roll(target, shift, axis=0)
    prediction[14:18, 2:12] = 2
    prediction[20:22, 28:30] = 1
    return prediction, target


def object_metrics(prediction, target):
    return {
        "surface": surface_distances(prediction, target, 3),
        "panoptic": panoptic_counts(prediction, target, 3),
        "clustering": clustering_scores(prediction, target),
        "failures": object_failures(prediction, target, 3),
    }


@pytest.fixture
def add_objects():
    """``add_objects(folder, fold, shift=1, failed=())``: the rows of the metric pool for the validation part."""

    def add(folder, fold=0, split=None, shift=1, failed=(), part="val/plain"):
        lines = []
        for i, name in enumerate((split or split_of())["folds"][fold]["val"]):
            metrics, errors = object_metrics(*masks_of(i % 6, shift)), {}
            if name in failed:
                del metrics["surface"]
                errors["surface"] = {"type": "MemoryError", "message": "no room", "traceback": "..."}
            lines.append(encode(name, part, "00000000", json_ready(metrics), errors))
        write_lines(folder, lines)

    return add


def write_lines(folder, lines):
    file = RowFile(folder / layout.OBJECTS, resume=True, metrics={"surface", "panoptic", "clustering", "failures"})
    for line in lines:
        file.append(line)
    file.sort()
    file.close()


class Predicted:
    def __init__(self, name, miou):
        self.id, self.miou = name, miou
        self.prediction = np.zeros((30, 40), dtype=np.uint8)
        self.prediction[10:20] = 1
        self.confidence = np.linspace(0.4, 1, 1200, dtype=np.float32).reshape(30, 40)


@pytest.fixture
def add_pictures():
    """``add_pictures(folder, best, worst)``: example pictures with the given per-image mIoU."""

    def original(name):
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[12:22] = 1
        return np.full((30, 40, 3), 90, dtype=np.uint8), mask

    def add(folder, best=(0.9,), worst=(0.1,)):
        kinds = [[Predicted(f"p{value}", value) for value in kind] for kind in (best, worst)]
        pictures.write_examples(folder / layout.PREDICTIONS, *kinds, original, CLASSES)

    return add


@pytest.fixture(name="split_of")
def split_of_fixture():
    return split_of


HEIGHT, WIDTH = 96, 128


def scene(name):
    """A picture with a crack and three stains whose places follow from its name, and its class map."""
    rng = np.random.default_rng([*name.encode()])
    truth = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    y, x = rng.integers(8, 30), rng.integers(4, 30)
    truth[y : y + 5, x : x + 80] = 1
    for i in range(3):
        top, left = rng.integers(50, 70), 8 + 40 * i + rng.integers(0, 8)
        truth[top : top + 14, left : left + 14] = 2
    if name.endswith("3"):
        truth[:6] = 255
    image = (
        110 + 30 * rng.standard_normal((HEIGHT, WIDTH, 3)) - 50 * (truth[..., None] == 1) + 40 * (truth == 2)[..., None]
    )
    return image.clip(0, 255).astype(np.uint8), truth


def imagined(name, skill):
    """Logits of a model; the lower the skill, the more is shifted, joined, cut, misnamed, missed and invented."""
    rng = np.random.default_rng([*name.encode(), round(100 * skill)])
    _, truth = scene(name)
    guess = np.where(truth == 255, 0, truth)
    guess = np.roll(guess, int(rng.integers(0, 3 + round(8 * (1 - skill)))), axis=1)
    if rng.random() > skill:
        guess[60:66, 10:100] = 2  # joins stains
    if rng.random() > skill:
        guess[:, 50:60] = 0  # cuts the crack
    if rng.random() > skill:
        guess[45:90, :40] = np.where(guess[45:90, :40] == 2, 1, guess[45:90, :40])  # misnames a stain
    if rng.random() > skill:
        guess[2:12, 110:122] = 1  # invents a crack
    sure = 2 + 3 * rng.random((1, HEIGHT, WIDTH))
    logits = rng.standard_normal((3, HEIGHT, WIDTH)).clip(-0.9, 0.9)
    np.put_along_axis(logits, guess[None], sure, axis=0)
    return logits.astype(np.float32)


def write_full_runs(root, skills, num_folds=3, per_fold=4):
    make, split = run_maker(root), split_of(num_folds, per_fold)
    return {
        name: [fill_run(make(name, name, fold, split=split), split, fold, skill) for fold in range(num_folds)]
        for name, skill in skills.items()
    }


@pytest.fixture
def make_full_runs(tmp_path):
    """``make_full_runs({"a": 0.9, "b": 0.5})``: runs of three folds with everything that an evaluation leaves."""
    return partial(write_full_runs, tmp_path)


@pytest.fixture(scope="module")
def module_full_runs(tmp_path_factory):
    """The folder of three models with three folds each, for the tests of a module that only read."""
    root = tmp_path_factory.mktemp("full")
    write_full_runs(root, {"convnext_tiny": 0.9, "mit_b3": 0.7, "maxvit_tiny": 0.4})
    return root


def fill_run(folder, split, fold, skill):
    seen = {name: (imagined(name, skill), *scene(name)) for name in split["folds"][fold]["val"]}
    rows, lines, states, shown = [], [], [], []
    for i, (name, (logits, _, truth)) in enumerate(seen.items()):
        metric = Pixelwise(3)
        metric.update(torch.from_numpy(logits)[None], torch.from_numpy(truth.astype(np.int64))[None])
        states.append(metric.states())
        guess = logits.argmax(0).astype(np.uint8)
        scored = {key: float(value) for key, value in metric.compute().items()}
        place = f"predictions/classes/val_plain/{name}.png"
        pictures.write_class_map(folder / place, guess)
        group = {
            "id": name,
            "group": f"site {name[1]}{i // 2}",
            "part": "val",
            "inference": "plain",
            "prediction": place,
        }
        rows.append(group | scored)
        found = object_metrics(np.where(truth == 255, 0, guess), truth)
        lines.append(encode(name, "val/plain", "00000000", json_ready(found), {}))
        shown.append(Predicted(name, scored["miou"]))
        exponents = np.exp(logits - logits.max(0))
        shown[-1].prediction, shown[-1].confidence = guess, (exponents.max(0) / exponents.sum(0)).astype(np.float32)
    write_images(folder, rows)
    write_lines(folder, lines)
    total = add_states(states)
    arrays = {key: np.stack([each[key] for each in states]) for key in states[0]}
    write_pixel_counts(folder / layout.PIXEL_COUNTS, {("val", "plain"): Pictures(list(seen), arrays)})
    told = {"num_images": len(seen), "confusion": total["matrices"].sum(0).tolist(), **pixel_scores(total)}
    write_metrics(folder, null_for_nan(stored_metrics(folder) | {"parts": {"val": {"plain": told}}}))
    shown.sort(key=lambda one: -one.miou)
    half = len(shown) // 2
    examples = shown[:half], shown[half:]
    pictures.write_examples(folder / layout.PREDICTIONS, *examples, lambda name: seen[name][1:], CLASSES)
    rng = np.random.default_rng(fold)
    values = skill * (1 - np.exp(-np.arange(12) / 3)) + 0.02 * rng.random(12)
    write_curves(folder, values, 1 - values)
    audit = {"stopped": False, "method": "kfold", "groups": "group", "num_pictures": {"train": 8, "val": 4, "test": 0}}
    audit |= {"near_duplicates": "stop", "threshold": 0.98, "num_inside": 2, "num_across": 0, "findings": []}
    write_audit(folder, json.dumps(audit))
    return folder


@pytest.fixture(name="masks")
def masks_fixture():
    return masks_of
