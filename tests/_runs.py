"""Run folders with known confusion matrices, written in the layout that every run leaves."""

import csv
import hashlib
import io
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hsl.metrics.images.image_scores import image_scores
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.failures import object_failures
from hsl.metrics.objects.panoptic import panoptic_counts
from hsl.metrics.objects.surface import surface_distances
from hsl.metrics.pixels.formulas import add_states, pixel_scores
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.metrics.pool.worker import encode, json_ready
from hsl.reports.page import pictures

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
        (folder / "config.yaml").write_text(yaml.safe_dump({**content, **(config or {})}))
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
        (folder / "provenance.json").write_text(json.dumps({**facts, **(provenance or {})}))
        (folder / "splits.json").write_text(json.dumps(split))
        history = "epoch,lr,train/loss,val/loss,val/miou\n0,0.001,1.0,1.1,0.3\n1,0.001,0.8,0.9,0.5\n"
        (folder / "history.csv").write_text(history)
        if status == "finished":
            write_scores(folder, split, fold, confusion or confusion_of(50, 50), tta, test, rows)
        return folder

    return make


def write_scores(folder, split, fold, confusion, tta, test, rows):
    parts = {"val": {"plain": scores(confusion, len(split["folds"][fold]["val"]))}}
    if tta is not None:
        parts["val"]["tta"] = scores(tta, len(split["folds"][fold]["val"]))
    if test is not None:
        parts["test"] = {"plain": scores(test, 2)}
    page = {
        "monitor": {"name": "val/miou", "mode": "max", "value": 0.5, "epoch": 1},
        "classes": CLASSES,
        "parts": parts,
    }
    (folder / "metrics.json").write_text(json.dumps(page))
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["id", "group", "part", "inference", "miou", "pixel_accuracy", "confidence"])
    for name, group, miou in image_rows(split, fold) if rows is None else rows:
        table.writerow([name, group, "val", "plain", miou, 0.9, 0.8])
    (folder / "per_image.csv").write_text(text.getvalue())
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


def write_counts(folder, parts, name="pixel_counts"):
    """``pixel_counts.npz``; ``parts`` maps (part, inference) to ids and the confusion matrix they add up to."""
    stored = [counts_of(matrix, len(ids)) for ids, matrix in parts.values()]
    keys = [(part, inference) for (part, inference), (ids, _) in parts.items() for _ in ids]
    np.savez_compressed(
        folder / f"{name}.npz",
        ids=np.array([each for ids, _ in parts.values() for each in ids]),
        part=np.array([part for part, _ in keys]),
        inference=np.array([inference for _, inference in keys]),
        **{key: np.concatenate([each[key] for each in stored]) for key in stored[0]},
    )


@pytest.fixture
def add_tasks():
    """``add_tasks(folder, {"genus": 0.8}, fold=0)``: tasks of two classes, of whose 100 pixels a share is right.

    The rest of the second class is taken for the first. The validation curves end at half of that share.
    """

    def add(folder, right, fold=0, split=None, part="val"):
        page = json.loads((folder / "metrics.json").read_text())
        ids = (split or split_of())["folds"][fold]["val"] if part == "val" else ["t0", "t1"]
        for task, share in right.items():
            hits = round(100 * share)
            confusion = [[100, 0], [100 - hits, hits]]
            write_counts(folder, {(part, "plain"): (ids, confusion)}, f"pixel_counts_{task}")
            page.setdefault("task_classes", {})[task] = ["none", task]
            page["parts"][part]["plain"].setdefault("tasks", {})[task] = scores(confusion, len(ids))
        (folder / "metrics.json").write_text(json.dumps(page))
        table = pd.read_csv(folder / "history.csv")
        for task, share in right.items():
            table[f"val/miou/{task}"] = np.linspace(0.1, share / 2, len(table))
        table.to_csv(folder / "history.csv", index=False)
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
        page = json.loads((folder / "metrics.json").read_text())
        ids = (split or split_of())["folds"][fold]["val"] if part == "val" else ["t0", "t1"]
        targets, probabilities = given or guesses(ids, skill, several, classes)
        known = np.array([name not in unknown for name in ids])
        limits = [0.5] * len(classes) if several else None
        found = image_scores(probabilities[known], targets[known], limits)
        per_class = found.pop("per_class")
        stored = {"kind": "multi" if several else "single", **found}
        stored["per_class"] = {
            name: {score: float(values[i]) for score, values in per_class.items()} for i, name in enumerate(classes)
        }
        stored |= {"thresholds": dict.fromkeys(classes, 0.5)} if several else {}
        if not dense:
            page |= {"classes": [], "parts": {part: {"plain": {}}}}
            page["monitor"] = {"name": "val/accuracy", "mode": "max", "value": 0.5, "epoch": 1}
            for name in ("pixel_counts.npz", "per_image.csv"):
                (folder / name).unlink(missing_ok=True)
            (folder / "history.csv").write_text("epoch,phase,val/accuracy\n0,A,0.3\n1,B,0.5\n")
        page["image_classes"] = {"classification": list(classes)}
        page["parts"].setdefault(part, {}).setdefault("plain", {})["image_heads"] = {"classification": stored}
        (folder / "metrics.json").write_text(json.dumps(without_nan(page)))
        rows = []
        for name, target, one, is_known in zip(ids, targets, probabilities, known, strict=True):
            truth = target == 1 if several else np.arange(len(classes)) == target
            guess = one >= 0.5 if several else np.arange(len(classes)) == one.argmax()
            row = {"id": name, "group": f"g{name[:-1]}{int(name[-1]) // 2}", "part": part, "inference": "plain"}
            row |= {"head": "classification", "target": "|".join(np.array(classes)[truth]) if is_known else None}
            row |= {"prediction": "|".join(np.array(classes)[guess]), "loss": 0.1}
            row["correct"] = int((truth == guess).all()) if is_known else None
            rows.append(row | {f"probability/{each}": p for each, p in zip(classes, one, strict=True)})
        path = folder / "image_predictions.csv"
        table = pd.DataFrame(rows).astype({"correct": "Int64"})
        table.to_csv(path, mode="a", header=not path.exists(), index=False)
        return folder

    return add


def without_nan(node):
    if isinstance(node, dict):
        return {key: without_nan(value) for key, value in node.items()}
    if isinstance(node, list | np.ndarray):
        return [without_nan(value) for value in (node if isinstance(node, list) else node.tolist())]
    return None if isinstance(node, float) and np.isnan(node) else node


@pytest.fixture
def add_weighting():
    """``add_weighting(folder, {"genus": 3.0}, {("genus", "health"): [0.5, -0.2]})``: 40 logged steps.

    A norm is the median of norms that vary by a tenth; the cosines of a pair are repeated until the last step.
    """

    def add(folder, norms=(), cosines=(), failures=0, num_steps=40, objectives=("genus", "health")):
        lines = []
        for i in range(num_steps):
            step = 10 * (i + 1)
            line = {"step": step, "epoch": i // 4}
            line |= {f"weight/{name}": 1 + 0.01 * i * k for k, name in enumerate(objectives)}
            if norms:
                line |= {"solver_failures": min(i, failures), "steps": step, "degraded": 0.0}
                line |= {f"norm/{name}": value * (0.9, 1.0, 1.1)[i % 3] for name, value in dict(norms).items()}
            line |= {f"cosine/{a}/{b}": values[i % len(values)] for (a, b), values in dict(cosines).items()}
            lines.append(json.dumps(line) + "\n")
        (folder / "weighting.jsonl").write_text("".join(lines))
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
        with (folder / "objects.jsonl").open("ab") as file:
            file.writelines(lines)

    return add


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
        pictures.write_examples(folder / "predictions", *kinds, original, CLASSES)

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
    pd.DataFrame(rows).to_csv(folder / "per_image.csv", index=False)
    (folder / "objects.jsonl").write_bytes(b"".join(lines))
    total = add_states(states)
    keys = {"ids": list(seen), "part": ["val"] * len(seen), "inference": ["plain"] * len(seen)}
    np.savez_compressed(
        folder / "pixel_counts.npz",
        **{key: np.array(value) for key, value in keys.items()},
        **{key: np.stack([each[key] for each in states]) for key in states[0]},
    )
    page = json.loads((folder / "metrics.json").read_text())
    told = {"num_images": len(seen), "confusion": total["matrices"].sum(0).tolist(), **pixel_scores(total)}
    (folder / "metrics.json").write_text(json.dumps(page | {"parts": {"val": {"plain": told}}}))
    shown.sort(key=lambda one: -one.miou)
    half = len(shown) // 2
    pictures.write_examples(folder / "predictions", shown[:half], shown[half:], lambda name: seen[name][1:], CLASSES)
    rng = np.random.default_rng(fold)
    values = skill * (1 - np.exp(-np.arange(12) / 3)) + 0.02 * rng.random(12)
    history = "".join(f"{epoch},0.001,{1 - value},{1.1 - value},{value}\n" for epoch, value in enumerate(values))
    (folder / "history.csv").write_text(f"epoch,lr,train/loss,val/loss,val/miou\n{history}")
    audit = {"stopped": False, "method": "kfold", "groups": "group", "num_pictures": {"train": 8, "val": 4, "test": 0}}
    audit |= {"near_duplicates": "stop", "threshold": 0.98, "num_inside": 2, "num_across": 0, "findings": []}
    (folder / "audit.json").write_text(json.dumps(audit))
    return folder


@pytest.fixture(name="masks")
def masks_fixture():
    return masks_of
