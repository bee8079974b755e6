"""Labels are refined, reviewed and scored."""

import json
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
import uvicorn
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from hsl.batch import Batch
from hsl.data.audit.audit import audit
from hsl.data.datamodule import DataModule
from hsl.data.formats.folder import read_folder
from hsl.data.labels.label_table import LabelRow, read_labels, read_labels_page
from hsl.data.loading.transforms import training_transform
from hsl.data.splits.folds import kfold
from hsl.errors import ConfigError, DataError
from hsl.pseudo_labels.refine import read_agreement
from hsl.pseudo_labels.spot_check import keep_answer
from hsl.pseudo_labels.store import LabelFolder, read_confidence, read_mask
from hsl.verbs.label.refinement import kept_round, next_round, refine_round
from hsl.verbs.label.review import listening, review
from hsl.verbs.label.score import _compare, _table

CLASSES = ["background", "leaf"]
NOTHING: dict[str, Any] = dict.fromkeys(("flips", "rot90", "resized_crop", "rotation", "colour", "blur"))


@pytest.fixture
def data(tmp_path: Path) -> DataModule:
    """Twelve pictures of unlike sizes."""
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(12):
        random = np.random.default_rng(number)
        shape = (20 + number % 3, 30)
        Image.fromarray(random.integers(0, 255, (*shape, 3), np.uint8)).save(root / f"images/p{number:02}.png")
        Image.fromarray(random.integers(0, 2, shape, np.uint8)).save(root / f"masks/p{number:02}.png")
    (root / "dataset.yaml").write_text("classes: [background, leaf]\n")
    split = partial(kfold, num_folds=3, groups=None, stratify=None, test_from="fraction", test_fraction=0.2, seed=0)
    data = DataModule(
        root=root, reader=read_folder, split=split, fold=0, image_size=32, batch_size=4, num_workers=0,
        cache=None, cache_gigabytes=1.0, cache_dir=None, seed=0,
        audit=partial(audit, near_duplicates="off", threshold=0.98, missing_classes="warn", cache_dir=None),
        augmentation=partial(training_transform, **NOTHING), normalization={"mean": [0.5] * 3, "std": [0.5] * 3},
    )  # fmt: skip
    data.prepare()
    return data


class Known(lightning.LightningModule):
    """Predicts columns of leaf from ``left`` on, the column there with the probability 0.55."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        nn.init.constant_(self.network.weight, left)
        self.left = left

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        height, width = (int(side) for side in batch["size"].max(dim=0).values)
        logits = torch.zeros(len(batch["id"]), 2, height, width)
        logits[:, 1] = -5
        logits[:, 1, :, self.left :] = 5
        logits[:, 1, :, self.left] = np.log(0.55 / 0.45)
        return {"segmentation": logits}


def first_round(data: DataModule, path: Path, ids: tuple[str, ...], **changed: Any) -> Path:
    known = data.prepared
    settings: Mapping[str, Any] = {
        "data": known.catalogue.name, "classes": CLASSES, "split_sha256": known.fold_assignment.sha256, "fold": 0,
        "round": 0, "sources": {"grabcut": 1.0}, "uncertain_below": 0.6, "tiers": {"A": 0.8, "B": 0.5},
        "rules": {"sick": "leaf > 0.9"}, "classifiers": [], "parameters": {"image_classes": ["healthy", "sick"]},
    } | changed  # fmt: skip
    folder = LabelFolder(path, settings)
    for i, name in enumerate(ids):
        mask = np.zeros(data.original(name)[0].shape[:2], np.uint8)
        mask[:, 10:] = 1
        row = LabelRow(name, ("healthy", "sick")[i % 2], "A", 1.0, 0.0, 0.5, True, "grabcut", f"/pictures/{name}.png")
        folder.add(row, mask, np.ones(mask.shape, np.float32))
    return folder.finish()


def test_a_round(data: DataModule, tmp_path: Path) -> None:
    labels = first_round(data, tmp_path / "labels", data.prepared.parts["train"])
    moved = refine_round(Known(13), data, [labels], tmp_path / "run" / "round_1")
    folder = tmp_path / "run" / "round_1"
    assert moved == pytest.approx(4 / 30)  # three columns are background now, one is uncertain
    table = read_labels(folder)
    assert [row.id for row in table.rows] == list(data.prepared.parts["train"])
    for row in table.rows:
        mask = read_mask(folder, row.id)
        assert mask.shape == data.original(row.id)[0].shape[:2]
        assert (mask[:, :13] == 0).all()
        assert (mask[:, 13] == 255).all()
        assert (mask[:, 14:] == 1).all()
        assert read_confidence(folder, row.id)[0, 13] == pytest.approx(0.55, abs=0.002)
        assert row.uncertain == pytest.approx(1 / 30, abs=1e-6)
        assert (row.tier, row.sources) == ("A" if row.label == "healthy" else "B", "segmentation")
        assert row.image == f"/pictures/{row.id}.png"
    page = read_labels_page(folder)
    assert page.items() >= {"round": 1, "sources": {"segmentation": 1.0}, "reviewed": str(labels.resolve())}.items()
    log = json.loads((folder / "refinement_log.json").read_text())
    assert [(one["round"], one["decision"]) for one in log] == [(1, "converged")]
    pictures = {one.id: one for one in read_agreement(table)}
    assert pictures.keys() == {row.id for row in table.rows}
    # of 10 columns of background all 10, of 13 found; of 20 columns of leaf 16
    agreement = (10 / 13 + 16 / 20) / 2
    assert [one.agreement for one in pictures.values()] == pytest.approx([agreement] * len(pictures), abs=1e-6)
    assert all(one.flagged and not one.upgraded and one.first_tier == "A" for one in pictures.values())
    rounds = pd.read_csv(folder / "refinement.csv").set_index("round")
    assert list(rounds.index) == [0, 1]
    assert rounds.loc[1, ["drift", "miou", "agreement"]].tolist() == pytest.approx([4 / 30, agreement, agreement])
    assert rounds["quality"].tolist() == pytest.approx([1.0, np.mean([row.quality for row in table.rows])])
    assert rounds.loc[0, "tiers_A"] == len(table.rows)
    assert rounds.loc[0, ["drift", "miou", "agreement", "upgraded", "decision"]].isna().all()
    assert (folder / "audit" / "drift.png").is_file()
    assert not (folder / "oscillating.json").exists()


def test_rounds_that_do_not_settle(data: DataModule, tmp_path: Path) -> None:
    folders = [first_round(data, tmp_path / "labels", data.prepared.parts["train"])]
    drifts: list[float] = []
    for number, left in enumerate((20, 10, 19), start=1):
        folders.append(tmp_path / f"round_{number}")
        drifts.append(refine_round(Known(left), data, folders[:-1], folders[-1]))
    assert drifts == pytest.approx([11 / 30, 11 / 30, 10 / 30])
    assert [next_round(drifts[:n]) for n in (1, 2, 3)] == [True, True, False]
    log = json.loads((folders[-1] / "refinement_log.json").read_text())
    assert [one["decision"] for one in log] == ["again", "again", "oscillating"]
    moving = json.loads((folders[-1] / "oscillating.json").read_text())
    assert moving == pytest.approx(dict.fromkeys(data.prepared.parts["train"], 10 / 30))
    with pytest.raises(DataError, match=r"33\.3%.*oscillating\.json"):
        kept_round(folders, drifts)
    assert read_labels_page(folders[-1])["reviewed"] == str(folders[0].resolve())


@pytest.mark.parametrize(
    ("drifts", "kept"), [([0.1], 1), ([0.4, 0.5], 1), ([0.4, 0.1], 2), ([0.4, 0.3, 0.1], 3), ([0.4, 0.1499], 2)]
)
def test_the_round_that_is_kept(drifts: list[float], kept: int) -> None:
    assert kept_round([Path(str(number)) for number in range(len(drifts) + 1)], drifts) == Path(str(kept))
    assert not next_round(drifts)


def test_a_label_that_is_found_again_rises_to_a(
    data: DataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Healthy leaves of a quality below A; the sick ones break their class rule and stay in B."""
    labels = first_round(data, tmp_path / "labels", data.prepared.parts["train"], tiers={"A": 0.99, "B": 0.5})
    refine_round(Known(10), data, [labels], tmp_path / "round_1")
    rows = read_labels(tmp_path / "round_1").rows
    assert {(row.label, row.tier, row.quality < 0.99) for row in rows} == {("healthy", "A", True), ("sick", "C", True)}
    pictures = read_agreement(read_labels(tmp_path / "round_1"))
    assert {(one.label, one.upgraded) for one in pictures} == {("healthy", True), ("sick", False)}
    assert not any(one.flagged for one in pictures)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"{len(rows) // 2} labels lifted to tier A, 0 to look at" in said


def test_agreement_is_that_with_the_first_labels_whatever_the_rounds_between(data: DataModule, tmp_path: Path) -> None:
    folders = [
        first_round(data, tmp_path / "labels", data.prepared.parts["train"]),
        tmp_path / "round_1",
        tmp_path / "round_2",
    ]
    refine_round(Known(20), data, folders[:1], folders[1])
    assert refine_round(Known(20), data, folders[:2], folders[2]) == 0
    rounds = pd.read_csv(folders[2] / "refinement.csv").set_index("round")
    assert rounds.loc[[1, 2], "agreement"].tolist() == pytest.approx([(10 / 20 + 9 / 20) / 2] * 2)
    assert rounds.loc[2, "miou"] == 1
    assert read_labels_page(folders[2])["first"] == str(folders[0].resolve())


def test_a_run_that_begins_with_refined_labels_counts_its_own_rounds(data: DataModule, tmp_path: Path) -> None:
    first = first_round(data, tmp_path / "labels", data.prepared.parts["train"])
    refine_round(Known(20), data, [first], tmp_path / "round_1")
    refine_round(Known(19), data, [tmp_path / "round_1"], tmp_path / "other" / "round_1")
    assert pd.read_csv(tmp_path / "other" / "round_1" / "refinement.csv")["round"].tolist() == [1, 2]
    log = json.loads((tmp_path / "other" / "round_1" / "refinement_log.json").read_text())
    assert [one["decision"] for one in log] == ["converged"]


def test_a_round_is_made_anew(data: DataModule, tmp_path: Path) -> None:
    labels = first_round(data, tmp_path / "labels", data.prepared.parts["train"])
    refine_round(Known(13), data, [labels], tmp_path / "round_1")
    assert refine_round(Known(10), data, [labels], tmp_path / "round_1") == pytest.approx(1 / 30)


def test_only_training_pictures_of_these_data(data: DataModule, tmp_path: Path) -> None:
    held_out = data.prepared.parts["test"][:1]
    labels = first_round(data, tmp_path / "leak", data.prepared.parts["train"] + held_out)
    with pytest.raises(DataError, match=f"training pictures only.*{held_out[0]}"):
        refine_round(Known(13), data, [labels], tmp_path / "round_1")
    other = first_round(data, tmp_path / "other", data.prepared.parts["train"], fold=1)
    with pytest.raises(DataError, match="should belong to these data"):
        refine_round(Known(13), data, [other], tmp_path / "round_1")
    assert not (tmp_path / "round_1").exists()


# Labels are reviewed and scored.


Tiny = Callable[..., DictConfig]
HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "labels.csv").write_text(HEAD + "p0,rust,A,0.9,0.1,0.2,1,gradcam,p0.png\n")
    (folder / "labels.json").write_text(json.dumps({"format": 1, "data": "leaves", "classes": ["ground", "leaf"]}))
    return folder


@pytest.fixture
def served(labels: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where the server would have listened; the picture is accepted meanwhile."""
    places: list[tuple[str, int]] = []

    def run(self: Any, sockets: list[socket.socket]) -> None:
        places.append(sockets[0].getsockname()[:2])
        keep_answer(labels, "p0", "accept")
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return places


def test_the_address_and_the_end_are_printed(
    tiny: Tiny, labels: Path, served: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    review(tiny(f"labels={labels}", "port=0", verb="label_review"))
    printed = capsys.readouterr().out
    ((host, port),) = served
    assert host == "127.0.0.1"
    assert f"1 of 1 pictures to judge: http://127.0.0.1:{port}/\n" in printed
    assert printed.endswith("passed\n")


def test_other_machines_need_a_new_token_each_time(
    tiny: Tiny, labels: Path, served: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny(f"labels={labels}", "port=0", "host=0.0.0.0", verb="label_review")
    tokens = []
    for _ in range(2):
        review(cfg)
        tokens.append(capsys.readouterr().out.partition("/?token=")[2].partition("\n")[0])
    assert all(len(token) >= 32 for token in tokens)
    assert tokens[0] != tokens[1]
    assert [host for host, _ in served] == ["0.0.0.0"] * 2


def test_an_answer_is_sent_at_once_however_small() -> None:
    with (
        listening("127.0.0.1", 0) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_port_is_8712_and_taken_is_said(tiny: Tiny, labels: Path) -> None:
    assert tiny(f"labels={labels}", verb="label_review").port == 8712
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"`port = {port}`, which is in use.*port=0"):
            review(tiny(f"labels={labels}", f"port={port}", verb="label_review"))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(ConfigError, match="should be an address of this machine"):
        listening(host, 0)


@pytest.mark.parametrize("port", ["port=70000", "port=-1", "port=none"])
def test_a_port_that_is_none(tiny: Tiny, labels: Path, port: str) -> None:
    with pytest.raises(ConfigError, match=r"`port` should be in \[0, 65535\]"):
        review(tiny(f"labels={labels}", port, verb="label_review"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("per_class_and_tier=0", "`per_class_and_tier`: .* Found `per_class_and_tier = 0`"),
        ("thresholds.A=1.5", "`thresholds.A`"),
        ("max_c_share=none", "`max_c_share`"),
    ],
)
def test_settings_that_are_wrong(tiny: Tiny, labels: Path, setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        review(tiny(f"labels={labels}", setting, verb="label_review"))
    assert not (labels / "review.json").exists()


def test_a_folder_without_labels(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        review(tiny(f"labels={tmp_path / 'nowhere'}", verb="label_review"))


# Score.


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    label = np.array([[0, 1, 1], [255, 2, 0]], np.uint8)
    matrix, unsure, known = _compare(label, truth, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert (unsure, known) == (1, 5)
    table = _table({"A": [(matrix, unsure, known)], "B": [], "C": []}, ("ground", "leaf", "spot"))
    whole, first = table.iloc[0], table.iloc[1]
    assert whole["iou/ground"] == pytest.approx(1 / 2)
    assert whole["iou/leaf"] == pytest.approx(1 / 2)
    assert whole["iou/spot"] == pytest.approx(1)
    assert whole["uncertain"] == pytest.approx(1 / 5)
    assert first["miou"] == whole["miou"] == pytest.approx(2 / 3)
    assert np.isnan(table.iloc[2]["miou"])
