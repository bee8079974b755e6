"""``README.md`` of an artefact, the model card: data, classes, scores with intervals, use, limits, licence, origin."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsl.exporting.manifest import Manifest
from hsl.reports.scores import Scores, counted, picture_groups
from hsl.reports.statistics.contrasts import Contrast, PooledScore, Units
from hsl.reports.statistics.resampling import Estimate, estimates
from hsl.run_folder.run import Run, ScoredOn, read_run

RESAMPLES, SEED = 10_000, 0
PARTS = ("val", "test")
SCORES = {False: {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"},
          True: {"accuracy": "accuracy", "macro_f1": "macro F1"}}  # fmt: skip
"""Of pixels, and of an image head."""
USE = (
    "For pictures of the kind that it was trained on, taken as those were. `python -m hsl.exporting.runner FOLDER "
    "PICTURE... --output DIR` writes masks and tables; in Python:",
    "",
    "```python",
    "from pathlib import Path",
    "",
    "from hsl.exporting.runner import Runner",
    "",
    'runner = Runner.open("FOLDER")',
    'said = runner.predict(runner.decode(Path("leaf.png").read_bytes(), "leaf.png"))',
    "```",
)


def model_card(
    manifest: Manifest,
    runs: Sequence[Path],
    scored: Sequence[Path],
    parity: Mapping[str, Any],
    fixed: Mapping[str, str],
) -> str:
    """The text of the card.

    Args:
        manifest: of the artefact.
        runs: the folders whose models are in it.
        scored: the folders whose scores are those of the artefact: the same, or what an ensemble left of each fold.
        parity: what was compared.
        fixed: by graph why it takes one size only.
    """
    sections = {
        f"# {manifest.name}": _summary(manifest, fixed),
        "## Data": _data([read_run(folder) for folder in runs]),
        "## Classes": [f"- `{head.name}` ({head.kind}): {', '.join(head.classes)}" for head in manifest.heads],
        "## Scores": _scores([read_run(folder) for folder in scored]),
        "## Use": list(USE),
        "## Limits": _limits(manifest, parity),
        "## Agreement with `hsl predict`": _agreement(parity),
        "## Licence": [manifest.licence or "Not stated."],
        "## Origin": _origin(manifest),
    }
    return "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections.items()) + "\n"


def _summary(manifest: Manifest, fixed: Mapping[str, str]) -> list[str]:
    runtimes = {"onnx": "onnxruntime", "openvino": "OpenVINO", "torch_export": "torch"}
    kind = "one network" if len(manifest.models) == 1 else f"{len(manifest.models)} networks that are combined"
    lines = [f"A model of `hsl`, {kind}, run by {runtimes[manifest.runtime]}. A picture of any size goes in; class "
             "maps and probabilities at its size come out."]  # fmt: skip
    for file, why in fixed.items():
        lines.append(f"The graph `{file}` takes inputs of one size only: {why}.")
    return lines


def _data(runs: Sequence[Run]) -> list[str]:
    first = runs[0]
    name = first.provenance.get("data") or first.provenance.get("choices", {}).get("data", "not recorded")
    lines = [f"Data set: {name}."]
    for run in runs:
        if run.split is None:
            lines.append(f"Fold {run.fold}, seed {run.seed}: the assignment was not kept.")
            continue
        fold = run.split.folds[run.fold]
        held = f", {len(fold.stop)} to stop" if fold.stop else ""
        lines.append(
            f"Fold {run.fold}, seed {run.seed}: {len(fold.train)} pictures to train{held}, {len(fold.val)} to "
            f"validate, {len(run.split.test)} in the test part (split {run.split.sha256[:12]})."
        )
    return list(dict.fromkeys(lines))  # members of an ensemble share their folds


def _scores(runs: Sequence[Run]) -> list[str]:
    """A table of every run's scores, each with its 95 % interval over groups of pictures."""
    lines = ["| run | part | inference | score | value | 95 % interval | groups |", "|---|---|---|---|---|---|---|"]
    for run in runs:
        for of_images in (False, True):
            if not (run.metrics and (run.metrics.image_classes if of_images else run.metrics.classes)):
                continue
            seen = run.on_image_head() if of_images else run
            for on in [ScoredOn(part, way) for part in PARTS for way in ("plain", "tta")]:
                lines += [
                    f"| fold {run.fold}, seed {run.seed} | {on.part} | {on.inference} | {SCORES[of_images][name]} | "
                    f"{estimate.mean:.3f} | {_interval(estimate)} | {estimate.num_units} |"
                    for name, estimate in run_scores(seen, on).items()
                ]
                lines += _per_class(seen, on) if not of_images else []
    return lines if len(lines) > 2 else ["The run left no scores."]


def run_scores(run: Run, on: ScoredOn) -> dict[str, Estimate]:
    """By name the pooled scores of a run, with an interval over groups; none where it left no counts."""
    known, groups = counted(run, on), picture_groups(run, on)
    if known is None or not set(known.ids) <= set(groups):
        return {}
    units = Units.of([groups[name] for name in known.ids])
    counts = known.counts.by_unit(units.index, units.num)
    names = list(SCORES[run.of_images])
    contrasts = [Contrast(units, PooledScore(counts, name), bounds=(0, 1)) for name in names]
    return dict(zip(names, estimates(contrasts, RESAMPLES, SEED), strict=True))


def _per_class(run: Run, on: ScoredOn) -> list[str]:
    scores = Scores.of_run(run, on)
    if scores is None:
        return []
    return [
        f"| fold {run.fold}, seed {run.seed} | {on.part} | {on.inference} | IoU of {name} | {value:.3f} | | |"
        for name, value in zip(run.classes, scores.per_class["iou"], strict=True)
        if not math.isnan(value)  # the class occurs
    ]


def _interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return "too few groups to say"
    return f"{estimate.interval.low:.3f} to {estimate.interval.high:.3f}"


def _limits(manifest: Manifest, parity: Mapping[str, Any]) -> list[str]:
    known = "The gate in `gate/` marks pictures of another kind, as `gate.json` says; an answer is given all the same."
    if not any("gate" in row for row in parity["pictures"]):
        known = "It gives an answer for any picture, also for one of another kind: it has no gate."
    lines = [
        "- Scores are those of the pictures named above; of other cameras, sites and kinds nothing is known.",
        f"- {known}",
        f"- Pictures above {manifest.decoding.max_megapixels:g} megapixels are refused.",
    ]
    if manifest.decoding.bits is not None:
        low, high = manifest.decoding.bits
        lines.append(f"- A picture of 16 bits is refused unless its largest number has {low} to {high} bits.")
    return lines


def _agreement(parity: Mapping[str, Any]) -> list[str]:
    if "quantised" in parity:
        return [f"- {sentence}" for sentence in parity["quantised"]["sentences"]]
    rows = parity["pictures"]
    changed = max((share for row in rows for share in row["changed_pixels"].values()), default=None)
    image = max((value for row in rows for value in row["image_probability"].values()), default=None)
    features = max((row["gate"]["features"] for row in rows if "gate" in row), default=None)
    lines = [f"Measured on {len({row['id'] for row in rows})} validation pictures at three sizes and two batch sizes."]
    if changed is not None:
        lines.append(f"- Pixels in another class, at most: {changed:.4%} of a picture (allowed: 0.1 %).")
    if image is not None:
        lines.append(f"- Probability of an image class, largest difference: {image:.2g} (allowed: 0.001).")
    if features is not None:
        lines.append(f"- Features of the gate, largest difference: {features:.2g} of their length (allowed: 0.001); "
                     "every verdict is the same.")  # fmt: skip
    return lines


def _origin(manifest: Manifest) -> list[str]:
    facts, members = [manifest.provenance], ["Run"]
    if manifest.combinations:
        facts, members = manifest.provenance["members"], [f"`{model.member}`: run" for model in manifest.models]
    lines = []
    for member, fact in zip(members, facts, strict=True):
        git = fact.get("git") or {}
        lines.append(
            f"- {member} `{fact.get('name', 'unnamed')}`, fold {fact.get('fold')}, seed {fact.get('seed')}, started "
            f"{fact.get('started', 'at an unknown time')}, commit {str(git.get('commit', 'unknown'))[:12]}, first "
            f"weights: {fact['first_weights'].get('source', 'unknown')}, SHA-256 of the checkpoint: "
            f"{fact['checkpoint_sha256'][:12]}."
        )
    return lines
