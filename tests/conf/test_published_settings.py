"""The experiments and the labelling that were published have the published values."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from tests.conftest import composed

from hsl.cli import conf_dir
from hsl.pseudo_labels.quality import Judgement
from hsl.verbs.label.settings import present_sources
from hsl.verbs.train.phase_plan import read_phases

CORAL = {
    "monitor": "val/h_mean", "callbacks.best_checkpoint.monitor": "val/h_mean",
    "optimizer.lr": 6e-5, "optimizer.weight_decay": 0.01, "optimizer.betas": [0.9, 0.999],
    "scheduler._target_": "hsl.tasks.schedulers.poly", "scheduler.power": 1.0, "scheduler.warmup_ratio": 0.1,
    "trainer.max_epochs": 100, "trainer.precision": "auto", "trainer.accumulate_grad_batches": 1,
    "data.batch_size": 4, "data.image_size": 512, "data.tasks": "coral", "data.evaluation_size": "source",
    "inference.window": 512, "inference.stride": 256, "inference.windows_per_batch": 16, "encoder.name": "mit_b2",
    "decoder.dropout": 0.1, "augmentation.flips": {"horizontal": 0.5, "vertical": 0.5},
    "augmentation.rot90": {"probability": 0.5}, "augmentation.resized_crop.scale": [0.5, 1.0],
    "augmentation.resized_crop.probability": 0.5, "augmentation.rotation.degrees": 15,
    "augmentation.colour": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1, "probability": 0.8},
    "augmentation.blur.probability": 0.5,
}  # fmt: skip
SEVERAL = CORAL | {
    "weighting._target_": "hsl.weighting.scalar.Uncertainty", "decoder.width": 256, "loss.hybrid_alpha": 0.5,
    "loss.pixel.gamma": 2.0, "loss.auxiliary_weight": 0.4, "loss.consistency_weight": 0.1,
    "callbacks.weighting_log._target_": "hsl.callbacks.weighting_log.WeightingLog",
}  # fmt: skip
NASH = {"weighting.method._target_": "hsl.weighting.gramian.nash_mtl", "weighting.update_every": 10}
FOCUSED = {"decoder.primary": ["genus", "health"], "loss.primary": ["genus", "health"]}

ARTEFACT = {
    "seed": 42, "data.image_size": 384, "data.batch_size": 96, "data.split._target_": "hsl.data.splits.folds.kfold",
    "data.split.num_folds": 3, "data.split.seed": 42, "data.cache": "ram", "trainer.max_epochs": 50,
    "trainer.precision": "auto", "trainer.gradient_clip_val": 1.0, "optimizer._target_": "hsl.tasks.optimizers.adamw",
    "optimizer.lr": 1e-3, "optimizer.weight_decay": 0.01, "optimizer.betas": [0.9, 0.999],
    "scheduler._target_": "hsl.tasks.schedulers.onecycle", "scheduler.pct_start": 0.3,
    "loss.weights": {"dice": 0.5, "focal": 0.5}, "loss.terms.focal.alpha": 0.25, "loss.terms.focal.gamma": 2.0,
    "loss.terms.dice.smooth": 1.0, "loss.class_weights": "inverse_sqrt", "callbacks.early_stopping.patience": 10,
    "callbacks.early_stopping.min_delta": 0.001, "callbacks.evaluation.num_examples": 30,
    "callbacks.tta_evaluation.predictor.transforms": ["identity", "hflip", "vflip", "rot90"], "monitor": "val/miou",
    "decoder._target_": "hsl.models.decoders.unet", "decoder.channels": [256, 128, 64, 32, 16],
    "decoder.interpolation": "bilinear", "augmentation.flips": {"horizontal": 0.5, "vertical": 0.5},
    "augmentation.rot90": {"probability": 0.5}, "augmentation.resized_crop": None, "augmentation.rotation": None,
    "augmentation.colour": None, "augmentation.blur": None, "encoder.weights": "auto",
}  # fmt: skip
STEEL = {
    "seed": 42, "data.split.seed": 42, "data.image_size": [256, 1600], "data.batch_size": 4,
    "data.split._target_": "hsl.data.splits.fractions.fractions", "data.split.val_fraction": 0.15,
    "data.split.test_fraction": 0.15, "data.image_labels": ["defect_1", "defect_2", "defect_3", "defect_4"],
    "encoder.name": "tu-convnext_tiny.fb_in1k", "encoder.cbam_stages": [3, 4], "encoder.weights": "auto",
    "loss._target_": "hsl.losses.image_loss.MultilabelFocal", "loss.alpha": "dynamic", "loss.gamma": 2.0,
    "optimizer.lr": 1e-3, "optimizer.weight_decay": 1e-4, "scheduler.warmup_epochs": 5, "trainer.max_epochs": 100,
    "callbacks.early_stopping.patience": 15, "augmentation.flips": {"horizontal": 0.5, "vertical": 0.3},
    "augmentation.rotation.degrees": 15, "augmentation.rotation.probability": 0.5, "augmentation.colour.hue": 0.05,
    "augmentation.colour.brightness": 0.2, "augmentation.colour.contrast": 0.2, "augmentation.colour.saturation": 0.1,
    "augmentation.blur.kernel": 3,
}  # fmt: skip
HISTOLOGY = {
    "loss.weights": {"segmentation": 2.0, "edge": 10.0, "hv": 1.0, "reconstruction": 0.5, "object_embedding": 0.5,
                     "pixel_contrastive": 0.1, "total_variation": 0.1, "small_hole": 0.1},
    "loss.t_pos": 0.8, "loss.pseudo_weight": 0.3, "loss.rest_weight": 0.05, "loss.t_contrast": 0.1,
    "loss.temperature": 0.1, "loss.max_pixels": 512, "task.network.further_heads.hv.channels": 1,
    "task.network.further_heads.reconstruction.channels": 3,
    "callbacks.loss_parts._target_": "hsl.callbacks.loss_parts.LossParts",
}  # fmt: skip
LEAF = {
    "seed": 42, "data.batch_size": 32, "optimizer._target_": "hsl.tasks.optimizers.adamw",
    "optimizer.weight_decay": 1e-4, "scheduler._target_": "hsl.tasks.schedulers.cosine", "trainer.precision": "auto",
    "decoder._target_": "hsl.models.decoders.deeplabv3plus", "decoder.channels": 256, "decoder.skip_channels": 48,
    "decoder.rates": [6, 12, 18], "loss.smooth": 1.0, "data.labels.tier_weights": {"A": 1.0, "B": 0.5, "C": None},
    "callbacks.rollback_gate.metric": "val/accuracy", "callbacks.rollback_gate.tolerance": 0.005,
    "callbacks.rollback_gate.minimum": {"val/miou": 0.5}, "callbacks.rollback_gate.phases": ["B"],
}  # fmt: skip
SHARED = ("seed", "optimizer", "scheduler", "decoder")
CHANNELS = {key: value for key, value in LEAF.items() if key.split(".")[0] in SHARED} | {
    "data.image_size": 224, "data.batch_size": 32, "trainer.precision": "auto", "trainer.max_epochs": 25,
    "optimizer.lr": 1e-4, "optimizer.lr_by_module": {"encoder": 1e-5}, "scheduler.warmup_epochs": 1,
    "callbacks.early_stopping.patience": 5, "loss.pixel._target_": "hsl.losses.cross_entropy.CrossEntropy",
    "loss.region._target_": "hsl.losses.overlap.ForegroundDice", "loss.region.smooth": 1.0,
    "loss.hybrid_alpha": 0.5, "monitor": "val/foreground_iou",
}  # fmt: skip
PHASES = {
    "A": {"trainer.max_epochs": 30, "optimizer.lr": 1e-3, "optimizer.lr_by_module": None, "scheduler.warmup_epochs": 1,
          "loss.weights": {"segmentation": 1.0, "classification": 0.0}, "callbacks.early_stopping.patience": 5},
    "B": {"trainer.max_epochs": 25, "optimizer.lr": 1e-4, "optimizer.lr_by_module": {"encoder": 1e-5},
          "scheduler.warmup_epochs": 1, "loss.weights": {"segmentation": 0.4, "classification": 0.6},
          "callbacks.early_stopping.patience": 5},
    "C": {"trainer.max_epochs": 15, "optimizer.lr": 1e-4, "scheduler.warmup_epochs": 0,
          "loss.weights": {"segmentation": 0.0, "classification": 1.0}, "callbacks.early_stopping.patience": 3,
          "loss.focus": "foreground", "loss.classification.hard_share": 0.5},
}  # fmt: skip

PUBLISHED: list[tuple[list[str], dict[str, Any]]] = [
    (["experiment=coral_flat"], CORAL | {"task.primary": "all"}),
    (["experiment=coral_focused"], SEVERAL | FOCUSED),
    (["experiment=coral_holistic"], SEVERAL | {"decoder.primary": "all", "loss.primary": "all"}),
    (["experiment=coral_holistic", "weighting=nash_mtl"], CORAL | NASH),
    *((["experiment=artefact_cv", f"encoder={encoder}", "data.split.seed=42"], ARTEFACT | {"encoder.name": name})
      for encoder, name in {"convnext_tiny": "tu-convnext_tiny.fb_in1k", "mit_b3": "mit_b3",
                            "maxvit_tiny": "tu-maxvit_tiny_tf_384.in1k"}.items()),
    (["experiment=steel_cbam", "data.split.seed=42"], STEEL),
    (["experiment=steel_cbam", "data.split.seed=42", "data.split.val_fraction=0.1", "data.split.test_fraction=0.1"],
     STEEL | {"data.split.val_fraction": 0.1, "data.split.test_fraction": 0.1}),
    (["experiment=histology"], HISTOLOGY),
    (["experiment=leaf_dual_head"], LEAF),
    (["experiment=leaf_channels"], CHANNELS),
]  # fmt: skip
"""What is typed, and by key of the resolved config the published value."""

DELIBERATE: list[tuple[str, str, Any, Any, str]] = [
    ("coral_holistic", "data.num_workers", 4, "auto", "as many as there are cores; the result is the same"),
    ("coral_holistic", "data.reader.ignore_unlabelled", True, False, "the background is trained: definitions 5"),
    ("coral_holistic", "loss.pixel.alpha", 0.25, None, "of a first version; the later settings weigh by hybrid_alpha"),
    ("coral_holistic", "metrics.pool.workers", 30, "auto", "likewise"),
    ("coral_holistic", "augmentation.blur.kernel", [3, 7], None, "follows sigma, 0.8 to 1.4 as of such windows"),
    ("artefact_cv", "data.split.seed", 42, 0, "of its own in every data set, so that runs stay comparable"),
    ("artefact_cv", "data.split.groups", None, "group", "copies of one painting stay on one side: definitions 1"),
    ("artefact_cv", "data.split.test_fraction", 0.0, 0.15, "test groups leave before the folds: definitions 1"),
    ("artefact_cv", "loss.max_ratio", None, 40, "a run with class weights of ratio 734 collapsed: definitions 2"),
    ("artefact_cv", "loss.terms.dice.classes", "all", "present", "an absent class has no Dice: definitions 3"),
    ("artefact_cv encoder=maxvit_tiny", "encoder.name", "tu-maxvit_tiny_tf_224", "tu-maxvit_tiny_tf_384.in1k",
     "weights of the size that is trained at"),
    ("steel_cbam", "data.split.seed", 42, 0, "of its own in every data set, so that runs stay comparable"),
    ("histology", "loss.opening", None, 0, "components below 100 pixels need a loop over pictures: definitions 4"),
    ("leaf_dual_head", "data.image_size", [224, 224], [128, 256], "these leaves are twice as wide as high"),
    ("leaf_dual_head", "phases.C.freeze", ["decoder", "heads.segmentation"],
     ["encoder", "decoder", "heads.segmentation"], "C trains the image head alone: definitions 10"),
    ("leaf_dual_head", "data.split.seed", 42, 0, "as above; masks are made and trained on by one split"),
    ("leaf_dual_head", "data.split.num_folds", 5, 3, "a fifth would hold two of the ten pictures of the rarest class"),
    ("leaf_dual_head", "loss.activation", "sigmoid", "softmax", "these masks have one class per pixel"),
    ("leaf_classifier", "seed", 42, 0, "it stands for the classifiers of before, whose training is not published"),
]  # fmt: skip
"""Preset, key, published value, ours, and why it is not the published one."""


def differing(cfg: DictConfig, expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key to the value found and the published one, where they are not the same."""
    plain = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    found = {key: OmegaConf.select(plain, key) for key in expected}
    values = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in found.items()}
    return {key: (value, expected[key]) for key, value in values.items() if value != expected[key]}


@pytest.mark.parametrize(
    ("words", "expected"), PUBLISHED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_resolved_values_are_the_published_ones(words: list[str], expected: dict[str, Any]) -> None:
    cfg = composed([*words, "data.root=x"])
    assert differing(cfg, expected) == {}


def test_the_phases_of_the_dual_head_have_the_published_values() -> None:
    phases = {phase.name: phase for phase in read_phases(composed(["experiment=leaf_dual_head", "data.root=x"]))}
    assert list(phases) == list(PHASES)
    for name, expected in PHASES.items():
        assert differing(phases[name].cfg, expected) == {}, name
    assert phases["A"].freeze == ("encoder", "heads.classification")
    assert [name for name, phase in phases.items() if phase.refine] == ["A"]


@pytest.mark.parametrize("preset", sorted({row[0] for row in DELIBERATE}))
def test_what_differs_has_a_reason_and_is_still_so(preset: str) -> None:
    rows = [row for row in DELIBERATE if row[0] == preset]
    cfg = composed([*f"experiment={preset}".split(), "data.root=x"])
    assert differing(cfg, {key: published for _, key, published, _, _ in rows}) == {
        key: (ours, published) for _, key, published, ours, _ in rows
    }


def test_a_value_that_differs_is_found() -> None:
    cfg = composed(["experiment=coral_flat", "data.root=x", "optimizer.lr=1e-3"])
    assert differing(cfg, CORAL) == {"optimizer.lr": (1e-3, 6e-5)}


def test_the_command_line_prints_the_published_values() -> None:
    words = ["experiment=coral_holistic", "data.root=x", "--cfg", "job", "--resolve"]
    shown = subprocess.run(
        [sys.executable, str(conf_dir().parent / "train.py"), *words], capture_output=True, text=True, check=True
    )
    assert differing(OmegaConf.create(shown.stdout), SEVERAL) == {}


# The thirteen classes of `labelling=sugarcane` against the published table, mask by mask.


CLASSES = ("background", "healthy", "structural", "surface", "degradation")
PIXELS = 10_000
SHOWS = {
    "Healthy": "healthy", "Red_rot": "degradation", "Brown_spot": "surface", "Mosaic": "surface", "Smut": "structural",
    "Grassy_shoot_disease": "structural", "Wilt": "degradation", "Leaf_scorching": "degradation",
    "Yellow_leaf_Disease": "degradation", "Pokkah_boeng": "structural", "Ring_spot": "surface",
    "Leaf_flecking": "surface", "Black_stripe": "surface",
}  # fmt: skip
"""Image class -> its primary channel in the published map of diseases and channels."""
LEAST: dict[str, dict[str, float]] = {
    "Red_rot": {"degradation": 0.03, "surface": 0.03}, "Brown_spot": {"surface": 0.03}, "Mosaic": {"surface": 0.03},
    "Smut": {"structural": 0.02}, "Grassy_shoot_disease": {"structural": 0.02}, "Wilt": {"degradation": 0.05},
    "Pokkah_boeng": {"structural": 0.02, "degradation": 0.02}, "Leaf_flecking": {"surface": 0.02},
    "Leaf_scorching": {"degradation": 0.03}, "Ring_spot": {"surface": 0.03},
    "Yellow_leaf_Disease": {"degradation": 0.03}, "Black_stripe": {"surface": 0.03},
}  # fmt: skip
"""Disease -> share that one of these channels exceeds; any of them is enough."""


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    return composed(["labelling=sugarcane", "data.root=x", "output=x", "sources.grabcut=null"], "label")


@pytest.fixture(scope="module")
def judgement(cfg: DictConfig) -> Judgement:
    return Judgement.of(cfg.rules, cfg.tiers, CLASSES, list(SHOWS))


def passes(judgement: Judgement, label: str, shares: Mapping[str, float]) -> bool:
    """Whether a mask with these shares of its pixels, the rest background, keeps the rules."""
    mask = np.zeros(PIXELS, np.uint8)
    start = 0
    for name, share in shares.items():
        mask[start : start + round(share * PIXELS)] = CLASSES.index(name)
        start += round(share * PIXELS)
    return judgement.row("p", label, mask.reshape(100, 100), [], "").rule_passed


def test_every_class_shows_its_published_channel(cfg: DictConfig) -> None:
    assert dict(cfg.channels) == SHOWS
    assert set(cfg.rules) == {"all", *SHOWS}
    assert set(LEAST) == set(SHOWS) - {"Healthy"}


@pytest.mark.parametrize("label", LEAST)
def test_a_disease_passes_just_above_the_published_share_of_one_of_its_channels(
    judgement: Judgement, label: str
) -> None:
    for channel in CLASSES[2:]:
        least = LEAST[label].get(channel)
        if least is None:
            assert not passes(judgement, label, {channel: 0.5, "healthy": 0.3})
            continue
        assert passes(judgement, label, {channel: least + 0.0001, "healthy": 0.3})
        assert not passes(judgement, label, {channel: least, "healthy": 0.3})


def test_a_healthy_plant_covers_much_and_shows_little(judgement: Judgement) -> None:
    assert passes(judgement, "Healthy", {"healthy": 0.4001})
    assert not passes(judgement, "Healthy", {"healthy": 0.4})
    marks = {"surface": 0.02, "structural": 0.02}
    assert passes(judgement, "Healthy", {"healthy": 0.6, **marks, "degradation": 0.0099})
    assert not passes(judgement, "Healthy", {"healthy": 0.6, **marks, "degradation": 0.0101})


@pytest.mark.parametrize(("label", "channel"), list(SHOWS.items()))
def test_every_picture_is_of_a_plant_to_eight_hundredths(judgement: Judgement, label: str, channel: str) -> None:
    least = {"Healthy": 0.4, "Wilt": 0.0999}.get(label, 0.08)  # a wilted plant covers a tenth, inclusive
    assert not passes(judgement, label, {channel: least})
    assert passes(judgement, label, {channel: least + 0.0001})


def test_without_colours_the_classifiers_label_alone(cfg: DictConfig) -> None:
    cfg = cfg.copy()
    cfg.classifiers = ["outputs/a"]
    assert present_sources(cfg) == {"gradcam": 1.0}
