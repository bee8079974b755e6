"""`hsl label` from the config to a folder that training reads, with real GrabCut and a real classifier."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict
from PIL import Image

from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.data.labels.label_table import read_labels, read_labels_page
from hsl.errors import ConfigError, UserError
from hsl.pseudo_labels.store import LabelFolder, read_mask
from hsl.verbs.label import classifiers as label_classifiers
from hsl.verbs.label import label as labelling
from hsl.verbs.opening.building import build_task, facts_of

CLASSES = ("background", "leaf", "spot")
COLOURS = {"background": (225, 222, 228), "leaf": (50, 140, 40), "spot": (130, 70, 20)}
NUM_PICTURES = 18
SEEDS = (
    "seeds={_target_: hsl.pseudo_labels.grabcut.ColourSeeds, longest_side: 64, colours: {"
    "background: [{saturation: [0, 20], value: [50, 100]}], leaf: [{hue: [80, 160], saturation: [40, 100]}], "
    "spot: [{hue: [0, 60], saturation: [40, 100]}]}}"
)
DATA = (
    "data=folder", "data.image_labels=label", "data.split.groups=null", "data.audit.near_duplicates=off",
    "data.image_size=64", "data.num_workers=0", "data.cache=null",
)  # fmt: skip
ALONE = (SEEDS, "sources.gradcam=null")


def picture(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A green leaf on paper; a sick one, of an odd number, has a brown spot."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[: 48 + number % 3, :64]
    mask = (((rows - 24) / 15) ** 2 + ((columns - 32) / 26) ** 2 < 1).astype(np.uint8)
    if number % 2:
        mask[(rows - 22) ** 2 + (columns - 20 - number) ** 2 < 30] = 2
    image = np.array([COLOURS[name] for name in CLASSES])[mask] + random.normal(0, 4, (*mask.shape, 3))
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaves")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(NUM_PICTURES):
        for name, array in zip(("images", "masks"), picture(number), strict=True):
            Image.fromarray(array).save(folder / name / f"p{number:02}.png")
    (folder / "dataset.yaml").write_text(f"classes: [{', '.join(CLASSES)}]\n")
    rows = [f"p{number:02},{'sick' if number % 2 else 'healthy'}" for number in range(NUM_PICTURES)]
    (folder / "labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    return folder


Label = Callable[..., Path]


def composed(verb: str, root: Path, output_root: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, overrides=[*DATA, f"data.root={root}", f"output_root={output_root}", *overrides],
                      return_hydra_config=True)  # fmt: skip
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@pytest.fixture
def label(root: Path, tmp_path: Path) -> Label:
    """Call the verb's function; the labels lie below this test's folder."""

    def label(*overrides: str, data: Path = root) -> Path:
        output = tmp_path / "labels"
        labelling.label(composed("label", data, tmp_path, f"output={output}", "workers=1", *overrides))
        return output

    return label


def train_ids(root: Path, tmp_path: Path) -> set[str]:
    data = instantiate(composed("label", root, tmp_path, "output=x").data)
    assert data.prepared.parts["val"]
    assert data.prepared.parts["test"]
    return set(data.prepared.parts["train"])


def test_grabcut_alone(
    label: Label, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: None
) -> None:
    folder = label(*ALONE, "rules={all: 'foreground > 0.1', sick: 'spot > 0.2'}", "workers=2")
    table = read_labels(folder)
    assert {row.id for row in table.rows} == train_ids(root, tmp_path)  # and nothing that is held out
    assert {one.stem for one in (folder / "masks").iterdir()} == {row.id for row in table.rows}
    for row in table.rows:
        truth = picture(int(row.id[1:]))[1]
        assert (read_mask(folder, row.id) == truth).mean() > 0.97
        assert (row.label == "sick") == bool(int(row.id[1:]) % 2)
        assert (row.tier, row.rule_passed) == (("B", False) if row.label == "sick" else ("A", True))
        assert row.sources == "grabcut"
        assert Path(row.image).is_file()
    page = read_labels_page(folder)
    assert page.items() >= {"data": root.name, "classes": list(CLASSES), "fold": 0, "round": 0}.items()
    assert page["sources"] == {"grabcut": 1.0}
    assert page["rules"] == {"all": "foreground > 0.1", "sick": "spot > 0.2"}
    for name in ("tier_A.png", "tier_B.png", "tiers_per_class.png"):
        with Image.open(folder / "audit" / name) as drawn:
            assert min(drawn.size) > 200
    printed = capsys.readouterr().out
    sick = sum(row.label == "sick" for row in table.rows)
    assert [cell.strip() for cell in next(x for x in printed.splitlines() if "sick" in x).split("│")[1:-1]] == [
        "sick", "0", str(sick), "0", str(sick),
    ]  # fmt: skip
    assert str(folder) in printed


def test_training_reads_them(label: Label, root: Path, tmp_path: Path) -> None:
    folder = label(*ALONE)
    given = ("data/labels=tiers", f"data.labels.folder={folder}", "data.labels.unchecked=true")
    data = instantiate(composed("train", root, tmp_path, *given).data)
    with pytest.warns(UserWarning, match="without a passed spot check"):
        data.prepare()
    name = data.prepared.parts["train"][0]
    assert (data.original(name)[1] == read_mask(folder, name)).all()


def test_goes_on_where_it_was_killed(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = label(*ALONE)
    whole = folder.rename(folder.with_name("whole"))
    added: list[str] = []
    add = LabelFolder.add

    def stopped(self: LabelFolder, row: Any, *arrays: Any) -> None:
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(row.id)
        add(self, row, *arrays)

    monkeypatch.setattr(LabelFolder, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        label(*ALONE)
    assert not folder.exists()
    later: list[str] = []
    monkeypatch.setattr(LabelFolder, "add", lambda self, row, *arrays: (later.append(row.id), add(self, row, *arrays)))
    label(*ALONE)
    assert not set(added) & set(later)
    assert (folder / "labels.csv").read_bytes() == (whole / "labels.csv").read_bytes()


def test_labels_are_not_overwritten_unasked(label: Label) -> None:
    folder = label(*ALONE)
    before = (folder / "labels.json").read_bytes()
    with pytest.raises(ConfigError, match="overwrite=true"):
        label(*ALONE, "uncertain_below=0.7")
    assert (folder / "labels.json").read_bytes() == before
    label(*ALONE, "uncertain_below=0.7", "overwrite=true")
    assert read_labels_page(folder)["uncertain_below"] == 0.7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((SEEDS,), r"`classifiers` should be run folders.*sources.gradcam=null"),
        (("sources={grabcut: null, gradcam: null}",), "`sources` should hold GrabCut or Grad-CAM"),
        (("sources.gradcam=null",), "`seeds` should be the colours"),
        ((*ALONE, "sources.grabcut=-1"), "a weight above 0"),
        ((*ALONE, "classifiers=[somewhere]"), "`classifiers` is given, but `sources.gradcam` is null"),
        ((*ALONE, "rules={mildew: 'spot > 0'}"), "Found .'mildew'."),
        ((*ALONE, "rules={sick: 'petal > 0'}"), "petal"),
        ((*ALONE, "rules={sick: 'spot >'}"), "spot >"),
        ((*ALONE, "tiers.A=0.3"), "0 <= B <= A <= 1"),
        ((*ALONE, "uncertain_below=1.5"), "`uncertain_below` should be in"),
        ((*ALONE, "workers=0"), "`workers` should be auto"),
        ((*ALONE, "data.image_labels=null"), "`data.image_labels` should be the column"),
        ((*ALONE, "data.image_labels=[label]"), "`data.image_labels` should be the column"),
        ((*ALONE, "+seeds.colours.petal=[{hue: [0, 9]}]"), "petal"),
        ((*ALONE, "seeds.colours.leaf=[{hue: [250, 260]}]", "seeds.colours.spot=[]"), "should find seeds.*none in 10"),
        ((*ALONE, "sam=nowhere"), "`sam` should be a folder"),
        ((SEEDS, "classifiers=[nowhere]", "channels={healthy: leaf}"), r"`channels` should give.*Correct \['sick'\]"),
        ((SEEDS, "classifiers=[nowhere]", "channels={healthy: leaf, sick: wilt}"), "`channels` should give"),
        ((SEEDS, "classifiers=[nowhere]", "channels={healthy: leaf, sick: spot}"), "nowhere"),
    ],
)  # fmt: skip
def test_mistakes_leave_nothing_behind(label: Label, tmp_path: Path, given: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        label(*given)
    assert not [one for one in tmp_path.iterdir() if "labels" in one.name]


@pytest.fixture(scope="module")
def classifier(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a classifier that was never trained; everything else of it is real."""
    folder = tmp_path_factory.mktemp("run")
    model = ("task=classifier", "loss=image_ce", "encoder=efficientnet_lite0", "encoder.weights=null", "seed=3")
    cfg = composed("train", root, folder, *model)
    data = instantiate(cfg.data)
    data.prepare()
    facts = {
        **facts_of(data.prepared),
        "split_sha256": data.prepared.fold_assignment.sha256,
        "fold": data.prepared.fold,
    }
    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    (folder / "provenance.json").write_text(json.dumps(facts))
    (folder / "splits.json").write_text(data.prepared.fold_assignment.to_json())
    torch.manual_seed(0)
    state = build_task(cfg, data.prepared).state_dict()
    torch.save({"state_dict": state}, folder / "checkpoints" / "best.ckpt")
    return folder


CHANNELS = "channels={healthy: leaf, sick: spot}"


def test_grabcut_and_a_classifier(
    label: Label, root: Path, tmp_path: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    original = label_classifiers.activations

    def spied(classifiers: Any, records: Sequence[Record], labels: torch.Tensor, value_range: Any) -> Any:
        shown.extend(record.id for record in records)
        assert [int(name[1:]) % 2 for name in shown] == labels.tolist()  # healthy is class 0, sick is class 1
        return original(classifiers, records, labels, value_range)

    monkeypatch.setattr(labelling, "activations", spied)
    folder = label(SEEDS, CHANNELS, f"classifiers=[{classifier},{classifier}]")
    training = train_ids(root, tmp_path)
    assert set(shown) == {row.id for row in read_labels(folder).rows} == training
    assert {row.sources for row in read_labels(folder).rows} == {"grabcut gradcam"}
    page = read_labels_page(folder)
    assert page["sources"] == pytest.approx({"grabcut": 0.375, "gradcam": 0.625})
    assert [one["run"] for one in page["classifiers"]] == [str(classifier)] * 2
    assert len(page["classifiers"][0]["sha256"]) == 64


def test_a_classifier_alone_and_pictures_without_seeds(
    label: Label, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = label("sources.grabcut=null", CHANNELS, f"classifiers=[{classifier}]")
    files = {one.name: one.read_bytes() for one in (alone / "masks").iterdir()}
    assert "found no seeds" not in capsys.readouterr().out
    colours = ("seeds.colours.leaf=[{hue: [250, 260]}]", "seeds.colours.spot=[]")
    label(SEEDS, *colours, CHANNELS, f"classifiers=[{classifier}]", "overwrite=true")
    assert {row.sources for row in read_labels(alone).rows} == {"gradcam"}
    assert {one.name: one.read_bytes() for one in (alone / "masks").iterdir()} == files
    assert f"no seeds in {len(files)} pictures" in capsys.readouterr().out


def test_activations_are_the_mean_at_the_size_of_each_picture(root: Path, tmp_path: Path, classifier: Path) -> None:
    data = instantiate(composed("label", root, tmp_path, "output=x").data)
    records, decoding = data.prepared.catalogue.records[:3], Decoding.of(data.prepared.catalogue)
    one = label_classifiers.open_classifiers([str(classifier)], data.prepared, named_targets(conf_dir()))[0]
    maps = list(label_classifiers.activations([one, one], records, torch.tensor([0, 1, 0]), decoding))
    once = list(label_classifiers.activations([one], records, torch.tensor([0, 1, 0]), decoding))
    assert [each.shape for each in maps] == [(48, 64), (49, 64), (50, 64)]
    for first, second in zip(maps, once, strict=True):
        assert np.allclose(first, second, atol=1e-6)
        assert 0 <= first.min() <= first.max() <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts.update(fold=1), "`fold = 1`, here 0"),
        (lambda facts: facts.update(split_sha256="0"), "other pictures"),
        (lambda facts: facts["image_classes"].update(classification=["a", "b"]), r"image classes \['a', 'b'\], here"),
    ],
)
def test_a_classifier_that_may_leak_is_refused(
    label: Label, classifier: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(classifier, other)
    facts = json.loads((other / "provenance.json").read_text())
    change(facts)
    (other / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=f"{other}.*{words}"):
        label(SEEDS, CHANNELS, f"classifiers=[{classifier},{other}]")
    assert not (tmp_path / "labels").exists()


def test_a_classifier_of_another_split_is_refused(label: Label, classifier: Path) -> None:
    with pytest.raises(ConfigError, match="pictures that are held out here were trained on"):
        label(SEEDS, CHANNELS, f"classifiers=[{classifier}]", "data.split.seed=1")


def test_a_run_without_image_head_is_refused(label: Label, classifier: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(classifier, other)
    cfg = OmegaConf.load(other / "config.yaml")
    cfg.task.network.heads = {"segmentation": cfg.task.network.heads.classification}
    OmegaConf.save(cfg, other / "config.yaml")
    with pytest.raises(ConfigError, match="no head for the class of a picture"):
        label(SEEDS, CHANNELS, f"classifiers=[{other}]")


def test_data_without_masks(label: Label, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(root, other)
    shutil.rmtree(other / "masks")
    folder = label(*ALONE, "data.reader.masks_optional=true", data=other)
    assert {row.id for row in read_labels(folder).rows} == train_ids(root, tmp_path)


def test_pictures_without_class_have_no_label(
    label: Label, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "data"
    shutil.copytree(root, other)
    rows = (root / "labels.csv").read_text().replace(",sick", ",").splitlines()
    rows[1] = "p00,sick"
    (other / "labels.csv").write_text("\n".join(rows) + "\n")
    folder = label(*ALONE, data=other)
    training = train_ids(other, tmp_path)
    even = {name for name in training if int(name[1:]) % 2 == 0}
    assert {row.id for row in read_labels(folder).rows} == even
    assert f"{len(training - even)} training pictures have no class" in capsys.readouterr().out
