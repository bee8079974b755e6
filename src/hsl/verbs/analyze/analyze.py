"""`hsl analyze`: where trained classifiers look, what their stages give, which pictures they get wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.errors import ConfigError
from hsl.files.io import null_for_nan
from hsl.files.output_folder import OutputFolder
from hsl.reports.analysis.numbers import DEAD_BELOW, Errors, feature_similarity, wrong_pictures
from hsl.reports.plots.score_plots import slug
from hsl.run_folder.layout import METRICS
from hsl.terminal import say
from hsl.verbs.analyze.analysis_files import write_analysis
from hsl.verbs.analyze.analyzed_runs import PARTS, AnalysedPictures, OpenedRun, open_runs, read_part, run_labels
from hsl.verbs.analyze.look import Look, look_into

FORMAT = 1
DEFINITIONS = {
    "pictures": "those of the part whose class is known, brought to the size that the run was trained on, in one look "
    "at the whole picture, without augmentation.",
    "heat_map": "Grad-CAM of a class that the picture shows, on the encoder's last features, scaled to [0, 1] in each "
    "picture.",
    "mean_heat_map": "mean over all analysed pictures that show the class.",
    "attention_share": "sum of the heat map inside the foreground / sum of the heat map, at the size of the mask; mean "
    "over the pictures. Foreground is every class but the first; ignored pixels count nowhere. Pictures without "
    "foreground, or with a heat map of 0, are left out.",
    "area": "foreground pixels / pixels, mean over the same pictures: the share of a heat map without preference.",
    "ratio": "attention share / area; 1 is chance.",
    "mean_and_std": "of all values that a stage gives over pictures, channels and pixels; std over their number.",
    "dead_channel": f"a channel whose value is below {DEAD_BELOW:g}, sign aside, in every pixel of every picture.",
    "wrong": "single class: the most probable class is another. Several classes: any class whose presence is known is "
    f"predicted otherwise, at the thresholds of the run's {METRICS}.",
    "feature_similarity": "linear CKA of the encoders' last features, mean over the pixels of each picture, with the "
    "unbiased estimate of HSIC (Kornblith 2019, Song 2012). 1: alike up to rotation and scale; about 0: unrelated.",
    "overlap": "Jaccard index: pictures wrong in both runs / pictures wrong in either; none where neither errs.",
}


def analyze(cfg: DictConfig) -> None:
    """Look into trained classifiers, one after the other, and write the folder; see docs/image_heads.md.

    Raises:
        ConfigError: a setting breaks a rule, or the runs cannot be compared. Nothing is written then.
        DataError: the pictures cannot be read, or no class is known.
    """
    validate(cfg)
    _check(cfg)
    names = [cfg.runs] if isinstance(cfg.runs, str) else list(cfg.runs)
    with OutputFolder(cfg.output, "analyze", inputs=names) as output:
        runs = open_runs(names, allowed_targets(cfg))
        labels = run_labels(runs)
        pictures = read_part(runs[0], cfg.part, cfg.examples, cfg.data_root, cfg.cache_dir)
        looks = []
        for label, run in zip(labels, runs, strict=True):
            looks.append(look_into(run, pictures))
            torch.cuda.empty_cache()  # one model at a time
            wrong = wrong_pictures(pictures.target, looks[-1].predicted)
            say(f"{label}: {wrong.sum()} of {len(wrong)} pictures wrong")
        analysis = Analysis(cfg.part, runs, labels, pictures, looks)
        write_analysis(output.work, analysis.content(), pictures, looks, analysis.errors)
    say(f"{output.path / 'index.md'}")


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that was found, before it is written."""

    part: str
    runs: Sequence[OpenedRun]
    labels: Sequence[str]
    pictures: AnalysedPictures
    looks: Sequence[Look]

    @property
    def errors(self) -> Errors:
        """Of all runs."""
        wrong = np.stack([wrong_pictures(self.pictures.target, look.predicted) for look in self.looks])
        return Errors(self.pictures.ids, self.labels, wrong)

    def content(self) -> dict[str, Any]:
        """What `analysis.json` says, but for the names of the files."""
        pictures, errors, first = self.pictures, self.errors, self.runs[0]
        counts = (pictures.target == 1).sum(axis=0)
        return {
            "format": FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": pictures.catalogue.name,
            "split_sha256": first.facts["split_sha256"],
            "fold": first.facts["fold"],
            "part": self.part,
            "several": pictures.several,
            "classes": {name: int(number) for name, number in zip(pictures.classes, counts, strict=True)},
            "num_pictures": len(pictures.records),
            "num_unknown": pictures.num_unknown,
            "examples": {
                pictures.classes[k]: [pictures.ids[i] for i in places] for k, places in pictures.examples.items()
            },
            "definitions": DEFINITIONS,
            "notes": list(self._notes()),
            "runs": [self._run(i) for i in range(len(self.runs))],
            "feature_similarity": _square(feature_similarity([look.features for look in self.looks])),
            "errors": {
                "wrong_in_all": errors.wrong_in_all,
                "wrong_in_one": errors.wrong_in_one,
                "overlap": _square(errors.overlap),
            },
        }

    def _run(self, i: int) -> dict[str, Any]:
        run, look, wrong = self.runs[i], self.looks[i], self.errors.wrong[i]
        return {
            "label": self.labels[i],
            "run": run.path,
            "sha256": look.sha256,
            "encoder": run.encoder,
            "heat_maps": f"heat_maps_{i + 1:02d}_{slug(self.labels[i])}.png",
            "num_wrong": int(wrong.sum()),
            "error_rate": float(wrong.mean()),
            "attention": None
            if look.attention is None
            else {name: {**asdict(one), "ratio": one.ratio} for name, one in look.attention.items()},
            "stages": {
                str(stride): {
                    "num_channels": stage.num_channels,
                    "mean": null_for_nan(stage.mean),
                    "std": null_for_nan(stage.std),
                    "num_dead": stage.num_dead,
                    "dead_share": stage.dead_share,
                }
                for stride, stage in look.stages.items()
            },
        }

    def _notes(self) -> list[str]:
        pictures, notes = self.pictures, []
        if pictures.num_unknown:
            notes.append(f"{pictures.num_unknown} pictures of the part have no known class and are left out.")
        masks = Counter(record.mask is not None for record in pictures.records)
        if not masks[True]:
            notes.append("the data set has no masks: the attention inside the foreground is left out.")
        elif masks[False]:
            notes.append(f"{masks[False]} pictures have no mask: the attention is that of the others.")
        absent = [name for k, name in enumerate(pictures.classes) if not pictures.examples[k]]
        if absent:
            notes.append(f"no picture of the part shows {', '.join(absent)}.")
        return notes


def _check(cfg: DictConfig) -> None:
    findings = []
    if cfg.part not in PARTS:
        why = " The test part is read by `hsl evaluate` alone." if cfg.part == "test" else ""
        findings.append(f"`part` should be train or val. Found `part = {cfg.part}`.{why} Choose another.")
    if not isinstance(cfg.examples, int) or isinstance(cfg.examples, bool) or cfg.examples < 1:
        findings.append(f"`examples` should be an integer from 1 up. Found `examples = {cfg.examples}`. Raise it.")
    if findings:
        raise ConfigError(" ".join(findings))


def _square(values: NDArray[np.float64]) -> list[list[float | None]]:
    square: list[list[float | None]] = null_for_nan(values.tolist())
    return square
