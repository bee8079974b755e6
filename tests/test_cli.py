"""What a user sees: one sentence that names the thing, the rule and the way out; exit code 2; no traceback."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.conftest import composed

from hsl.cli import conf_dir, run_verb
from hsl.models.network import SegmentationNetwork
from hsl.verbs.train.train import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*"),
    pytest.mark.usefixtures("undrawn"),
]

SMALL = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data=folder", "data.image_size=32", "data.batch_size=2",
    "data.num_workers=0", "data/split=holdout", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "data.audit.missing_classes=warn", "logger=none",
]  # fmt: skip
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed. Trained in bf16, as most are on a GPU."""
    root = tmp_path_factory.mktemp("trained")
    places = [f"data.root={draw_pictures(root / 'pictures')}", f"output_root={root / 'outputs'}"]
    train(composed([*SMALL, *places, "trainer.precision=bf16-mixed"], "train"))
    return next((root / "outputs").glob("*/fold0/*"))


def draw_pictures(root: Path) -> Path:
    """Eight good pictures of two classes, two to a group."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / "images" / f"p{i}.png")
        mask = np.zeros((32, 32), np.uint8)
        mask[i : i + 8, 4:20] = 1
        Image.fromarray(mask).save(root / "masks" / f"p{i}.png")
    (root / "dataset.yaml").write_text("classes: [background, defect]\n")
    (root / "splits.csv").write_text("id,split\n" + "".join(f"p{i},{'train' if i < 4 else 'val'}\n" for i in range(8)))
    (root / "labels.csv").write_text("id,group\n" + "".join(f"p{i},g{i // 2}\n" for i in range(8)))
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb in this process: exit code, and everything printed."""

    def call(verb: str, *arguments: str) -> tuple[int, str]:
        places = [f"output_root={tmp_path / 'outputs'}"] if verb == "train" else []
        monkeypatch.setattr(sys, "argv", ["hsl", *places, *arguments])
        monkeypatch.setenv("HSL_ONE_SENTENCE", "")  # both are set by run_verb; monkeypatch takes them back
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        try:
            run_verb(verb)
        except SystemExit as ended:
            code = int(ended.code or 0)
        else:
            code = 0
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return call


def expect(result: tuple[int, str], *words: str) -> None:
    code, printed = result
    assert code == 2, printed
    assert "Traceback" not in printed
    assert "error: " in printed
    for word in words:
        assert word in printed


def no_folder(root: Path) -> None:
    shutil.rmtree(root)


def no_masks(root: Path) -> None:
    shutil.rmtree(root / "masks")


def mask_without_picture(root: Path) -> None:
    (root / "images" / "p3.png").unlink()


def sizes_unlike(root: Path) -> None:
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(root / "masks" / "p3.png")


def value_outside(root: Path) -> None:
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(root / "masks" / "p3.png")


def binary_255(root: Path) -> None:
    """Binary masks as many tools write them; 255 would silently be "ignore"."""
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)


def ignore_masks(root: Path, ids: Sequence[int]) -> None:
    for i in ids:
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(root / "masks" / f"p{i}.png")


def nothing_to_learn(root: Path) -> None:
    ignore_masks(root, range(4))


def nothing_to_validate(root: Path) -> None:
    ignore_masks(root, range(4, 8))


def nothing_to_test(root: Path) -> None:
    parts = {i: ("train", "val", "test", "test")[i // 2] for i in range(8)}
    (root / "splits.csv").write_text("id,split\n" + "".join(f"p{i},{part}\n" for i, part in parts.items()))
    ignore_masks(root, range(4, 8))


def corrupt_png(root: Path) -> None:
    path = root / "images" / "p3.png"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (no_folder, ["pictures"]),
        (no_masks, ["masks"]),
        (mask_without_picture, ["p3"]),
        (sizes_unlike, ["p3.png", "32", "40"]),
        (value_outside, ["p3.png", "7"]),
        (binary_255, ["255", "p0.png"]),
        (corrupt_png, ["p3.png"]),
        (nothing_to_learn, ["training part", "Found none"]),
        (nothing_to_validate, ["The val part", "a pixel of a mask that counts", "none in 4 pictures"]),
        (nothing_to_test, ["The test part", "none in 4 pictures"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_data_that_are_wrong(
    run: Run, pictures: Path, tmp_path: Path, harm: Callable[[Path], None], words: list[str]
) -> None:
    harm(pictures)
    expect(run("train", *SMALL, f"data.root={pictures}"), *words)
    assert not list((tmp_path / "outputs").glob("*/fold*")), "a mistake in the data leaves no run folder"


def test_a_class_that_is_never_seen(run: Run, pictures: Path) -> None:
    (pictures / "dataset.yaml").write_text("classes: [background, defect, unicorn]\n")
    arguments = [one for one in SMALL if "missing_classes" not in one]
    expect(run("train", *arguments, f"data.root={pictures}"), "unicorn", "missing_classes")


def test_copies_on_both_sides(run: Run, pictures: Path) -> None:
    """What a published comparison did: offline flips of one picture in training and validation."""
    for i in range(4):
        mirrored = Image.open(pictures / "images" / f"p{i}.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(pictures / "images" / f"p{i + 4}.png")
    (pictures / "labels.csv").write_text("id,group\n" + "".join(f"p{i},g{i}\n" for i in range(8)))
    expect(run("train", *SMALL, f"data.root={pictures}", "data.split.groups=null"), "near-duplicate")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fold=9"], ["`fold` should be in [0, 1)", "`fold = 9`"]),
        (["encoder=typo"], ["Found `encoder=typo`", "mit_b0"]),
        (["trainer.max_epoch=3"], ["max_epoch"]),
        (["nonsense=1"], ["nonsense"]),
        (["data.image_size=33"], ["multiple of 32", "32 and 64"]),
        (["data.batch_size=none"], ["data.batch_size"]),
        (["data/split=leave_one_group_out", "data.split.groups=site"], ["site"]),
        (["resume=nowhere.ckpt"], ["nowhere.ckpt"]),
        (["encoder.weights=nowhere.pth"], ["nowhere.pth"]),
        (["loss.terms.focal.gamma=-1"], ["gamma", "-1"]),
        (["+nonsense=1"], ["`nonsense`", "+nonsense=1"]),
        (["+optimizer.lrr=1"], ["`optimizer.lrr`", "Did you mean `optimizer.lr`?"]),
        (["+data.reader.foo=1"], ["`data.reader.foo` should be a key of `data.reader`"]),
        (["optimizer.lr=abc"], ["`optimizer.lr` should be a number", "abc"]),
        (["optimizer.lr=-1"], ["`optimizer.lr` should be a number above 0"]),
        (["optimizer.betas=[0.9]"], ["`optimizer.betas` should be two"]),
        (["scheduler.pct_start=3"], ["`scheduler.pct_start` should be a number in [0, 1]"]),
        (["trainer.max_epochs=abc"], ["`trainer.max_epochs`", "abc"]),
        (["trainer.precision=bf17"], ["`trainer.precision` should be", "bf16-mixed", "bf17"]),
        (["trainer.accelerator=gpuu"], ["`trainer.accelerator = gpuu`", "trainer=default"]),
        (["trainer.precision=transformer-engine"], ["32-true, bf16-mixed, 16-mixed", "transformer-engine"]),
        (["seed=${oc.env:HSL_NOT_SET}"], ["`data.seed`", "HSL_NOT_SET is not set"]),
        (["monitor=val/loss", "monitor_mode=max"], ["`monitor_mode` should be min", "`monitor_mode=auto`"]),
        (["callbacks.early_stopping.patience=-3"], ["patience` should be a whole number of at least 0"]),
        (["metrics.pool.workers=0"], ["`metrics.pool.workers` should be a whole number of at least 1 or auto"]),
        (["callbacks.evaluation.num_examples=-1"], ["num_examples` should be a whole number of at least 0"]),
        (["loss.weights.dice=.nan"], ["`loss.weights` should be a map, each value a number of at least 0"]),
        (["+trainer.strategy=ddp_spawn"], ["`trainer.strategy` should be auto, ddp or"]),
        (["trainer.plugins=null"], ["AtomicCheckpointIO"]),
        (["trainer.check_val_every_n_epoch=2"], ["`trainer.max_epochs`, 1, so that there is a validation"]),
        (["+trainer.limit_val_batches=0.01"], ["leave a batch of the 2 that there are", "Take at least 0.5"]),
        (["+trainer.max_steps=1"], ["at least 2, the steps up to the first validation"]),
        (["data.batch_size=1"], ["maps of one pixel", "`data.batch_size = 1`. Raise it to 2"]),
        (["encoder._target_=nothing.at_all"], ["`encoder._target_`", "nothing.at_all"]),
        (["logger=null"], ["`logger` should be one of none, tensorboard"]),
        (
            ["encoder=generic", "encoder.name=coatnet_pico_rw_224", "data.evaluation_size=source"],
            ["`inference.window` should be 32", "coatnet_pico", "inference=sliding_window inference.window=32"],
        ),
        (["augmentation.flips=7"], ["`augmentation.flips` should be a map", "7"]),
    ],
)
def test_settings_that_are_wrong(
    run: Run, pictures: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    expect(run("train", *SMALL, f"data.root={pictures}", *arguments), *words)
    assert not list((tmp_path / "outputs").glob("*/fold*")), "a mistake in the config leaves no run folder"


@pytest.mark.parametrize("name", ["monitor", "callbacks.early_stopping.monitor"])
@pytest.mark.parametrize("mode", ["auto", "max"])
def test_a_value_that_nothing_logs(run: Run, pictures: Path, tmp_path: Path, name: str, mode: str) -> None:
    expect(
        run("train", *SMALL, f"data.root={pictures}", f"{name}=val/dream", f"monitor_mode={mode}"),
        "val/dream",
        "val/miou",
    )
    assert not list((tmp_path / "outputs").glob("*/fold*"))


def test_a_run_in_bf16_leaves_finite_scores(trained: Path) -> None:
    page = json.loads((trained / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert 0 < page["parts"]["val"]["plain"]["miou"] < 1
    assert "bf16-mixed" in (trained / "config.yaml").read_text()


def test_a_broken_picture_does_not_keep_the_others_from_being_segmented(
    run: Run, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    corrupt_png(pictures)
    Image.fromarray(np.zeros((45, 70), np.uint16)).save(pictures / "images" / "grey16.png")  # another size and kind
    out = tmp_path / "out"
    expect(run("predict", f"run={trained}", f"input={pictures / 'images'}", f"output={out}"), "1 of 9", "p3.png")
    table = pd.read_csv(out / "areas.csv")
    assert sorted(table["id"]) == ["grey16", "p0", "p1", "p2", "p4", "p5", "p6", "p7"]
    with Image.open(out / "masks" / "grey16.png") as picture:
        assert picture.size == (70, 45)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_picture_without_a_prediction_does_not_keep_the_others_from_being_segmented(
    run: Run, trained: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    network = SegmentationNetwork.forward

    def broken(self: Any, images: torch.Tensor, *rest: Any) -> Any:
        outputs = network(self, images, *rest)
        outputs["segmentation"][images.flatten(2).std(2).amax(1) < 0.1, 0, 3, 4] = float(value)
        return outputs

    monkeypatch.setattr(SegmentationNetwork, "forward", broken)
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(pictures / "images" / "plain.png")
    out = tmp_path / "out"
    said = run("predict", f"run={trained}", f"input={pictures / 'images'}", f"output={out}")
    expect(said, "1 of 9", f"`{value}` in `segmentation` for plain (prediction)", "optimizer.lr")
    assert sorted(pd.read_csv(out / "areas.csv")["id"]) == [f"p{i}" for i in range(8)]
    assert not (out / "masks" / "plain.png").exists()


def test_an_audit_tells_what_it_found_and_stops_where_a_run_would(run: Run, pictures: Path, tmp_path: Path) -> None:
    command = ("audit", "data=folder", f"data.root={pictures}", "data/split=holdout", f"output={tmp_path / 'audit'}")
    code, printed = run(*command)
    assert code == 0, printed
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["stopped"] is False
    assert "Pixels of the classes, train and val: not tested" in printed
    assert {"parts.json", "parts.csv", "parts.md", "parts.tex"} <= {
        path.name for path in (tmp_path / "audit").iterdir()
    }
    shutil.copy(pictures / "images" / "p0.png", pictures / "images" / "p7.png")
    expect(run(*command), "near-duplicate")
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["stopped"] is True
    assert list((tmp_path / "audit").rglob("*.png"))  # the pair to look at


def test_damaged_run_folders_name_their_files(run: Run, trained: Path, pictures: Path, tmp_path: Path) -> None:
    """A disk fault: each verb names the file, and a new run of the same config goes on without the damaged one."""
    folder = tmp_path / "outputs" / trained.relative_to(trained.parents[2])
    shutil.copytree(trained, folder)
    verbs = {"evaluate": [], "predict": [f"input={pictures / 'images'}", f"output={tmp_path / 'out'}"]}
    damage = {"metrics.json": ["evaluate"], "splits.json": ["evaluate"], "provenance.json": ["predict"],
              "config.yaml": ["evaluate", "predict"]}  # fmt: skip
    for name, readers in damage.items():
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(b"{" + whole[: len(whole) // 2])
        for verb in readers:
            expect(run(verb, f"run={folder}", *verbs[verb]), str(folder / name))
        if name == "provenance.json":
            code, printed = run("train", *SMALL, f"data.root={pictures}", "resume=last")
            assert code == 0
            assert str(folder / name) in printed
            assert "passed over" in printed
        (folder / name).write_bytes(whole)
    assert run("evaluate", f"run={folder}")[0] == 0


def change_mask(root: Path) -> None:
    """Another content of the same length, with the old time set back, as ``cp -p`` leaves it."""
    path = root / "masks" / "p0.png"
    before, length = path.stat(), path.stat().st_size
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = 1
    Image.fromarray(mask).save(path, compress_level=9)
    path.write_bytes(path.read_bytes().ljust(length, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_finished_run_counts_as_long_as_its_data_are_the_same(run: Run, pictures: Path, tmp_path: Path) -> None:
    command = (*SMALL, f"data.root={pictures}", "resume=last")
    assert run("train", *command)[0] == 0
    assert "finished already" in run("train", *command)[1]
    change_mask(pictures)
    code, printed = run("train", *command)
    assert code == 0
    assert "has other pictures, masks or labels than these. It is passed over" in printed
    first, second = sorted((tmp_path / "outputs").glob("*/fold0/*"))
    hashes = [json.loads((one / "provenance.json").read_text())["annotations_sha256"] for one in (first, second)]
    assert hashes[0]["train"] != hashes[1]["train"]
    assert hashes[0]["val"] == hashes[1]["val"]  # p0 trains

    page = (second / "provenance.json").read_text()  # as if it had been killed, and a class label corrected then
    (second / "provenance.json").write_text(page.replace('"finished"', '"running"', 1))
    (pictures / "labels.csv").write_text("id,group\n" + "".join(f"p{i},g{i}\n" for i in range(8)))
    checkpoint = second / "checkpoints" / "last.ckpt"
    expect(
        run("train", *command[:-1], f"resume={checkpoint}"),
        "masks, labels and `value_range` that it began with",
        "resume=null",
    )
    assert run("train", *command)[1].count("It is passed over") == 2
    assert len(list((tmp_path / "outputs").glob("*/fold0/*"))) == 3


def test_an_output_that_is_a_file(run: Run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    expect(
        run("audit", "data=folder", f"data.root={pictures}", f"output={tmp_path / 'taken'}"),
        "taken",
        "another `output`",
    )
    taken = f"output_root={tmp_path / 'taken'}"
    expect(run("train", *SMALL, f"data.root={pictures}", taken), "taken", "another path")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("evaluate", ["run=nowhere"], ["nowhere", "run folder"]),
        ("evaluate", [], ["`run`"]),
        ("predict", ["run=nowhere", "input=x", "output=y"], ["nowhere"]),
        ("report", ["runs=nowhere*"], ["nowhere*"]),
        ("audit", ["data=folder", "data.root=nowhere"], ["nowhere"]),
    ],
)
def test_verbs_that_are_pointed_nowhere(run: Run, verb: str, arguments: list[str], words: list[str]) -> None:
    expect(run(verb, *arguments), *words)


def test_a_full_disk_is_one_sentence(run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "outputs/x/last.ckpt")

    monkeypatch.setattr("hsl.run_folder.checkpoint.write_atomically", full)
    expect(run("train", *SMALL, f"data.root={pictures}"), "No space left", "last.ckpt", "resume=last")


def test_a_checkpoint_of_another_model_does_not_fit(run: Run, trained: Path) -> None:
    checkpoint, root = trained / "checkpoints" / "last.ckpt", trained.parents[3] / "pictures"
    result = run("train", *SMALL, f"data.root={root}", "encoder=mit_b0", f"resume={checkpoint}")
    expect(result, "last.ckpt")


def test_the_error_with_its_traceback_on_demand(pictures: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hsl.cli", "train", "fold=-1"]
    program = "import sys; from hsl.cli import main; main()"
    for environment, expected in (({}, False), ({"HYDRA_FULL_ERROR": "1"}, True)):
        done = subprocess.run(
            [sys.executable, "-c", program, *command[3:]],
            cwd=tmp_path, env={"PATH": "", **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ("Traceback" in done.stderr) is expected, done.stderr
        assert "fold" in done.stderr


@pytest.mark.parametrize("verb", sorted(path.stem for path in conf_dir().glob("[!_]*.yaml")))
def test_help_says_what_a_verb_does_with_an_example(run: Run, verb: str) -> None:
    code, printed = run(verb, "--help")
    assert code == 0
    assert "Example: " in printed


def test_a_warning_is_one_line_without_the_code_that_gave_it(run: Run) -> None:
    run("train", "fold=9")
    assert warnings.formatwarning("Class 3 is absent.", UserWarning, "loss.py", 83) == "! Class 3 is absent.\n"


def test_an_unknown_verb_lists_the_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hsl.cli import main

    monkeypatch.setattr(sys, "argv", ["hsl", "trian"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "train" in capsys.readouterr().err


def main_with(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """The verb's config and what is left of the command line when ``main`` hands over."""
    from hsl import cli

    called: list[str] = []
    monkeypatch.setattr(cli, "run_verb", lambda verb: called.extend([verb, *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", ["hsl", *words])
    cli.main()
    return called


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["label", "review", "labels=x", "port=0"], ["label_review", "labels=x", "port=0"]),
        (["label", "review", "--help"], ["label_review", "--help"]),
        (["train", "fold=1"], ["train", "fold=1"]),
        (["train", "-m", "fold=0,1"], ["train", "-m", "fold=0,1"]),
        (["audit", "~encoder"], ["audit", "~encoder"]),
        (["options", "encoder"], ["options", "encoder"]),
        (["runs", "outputs", "--json"], ["runs", "outputs", "--json"]),
    ],
)
def test_a_verb_may_be_two_words(monkeypatch: pytest.MonkeyPatch, words: list[str], expected: list[str]) -> None:
    assert main_with(monkeypatch, *words) == expected


@pytest.mark.parametrize("words", [["label", "revew"], ["label_review"], ["train", "review"]])
def test_a_wrong_second_word_lists_the_verbs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main_with(monkeypatch, *words)
    printed = capsys.readouterr().err
    assert f"`hsl {' '.join(words)}`" in printed
    assert "label review" in printed


def test_the_overview_shows_verbs_of_two_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main_with(monkeypatch, "--help")
    printed = capsys.readouterr().out
    assert "  label review " in printed
    assert "label_review" not in printed


def test_the_help_of_a_verb_of_two_words(run: Run) -> None:
    assert "`hsl label review --cfg job`" in run("label_review", "--help")[1]


@pytest.mark.parametrize(
    ("verb", "words", "same"),
    [
        ("options", ["encoder"], ["group=encoder"]),
        ("options", ["--json"], ["json=true"]),
        ("options", ["data/split", "--json"], ["json=true", "group=data/split"]),
        ("options", ["group=null", "json=false"], []),
        ("runs", ["nowhere", "--json"], ["--root=nowhere", "json=true"]),
    ],
)
def test_a_verb_without_hydra_takes_bare_words_and_flags(
    run: Run, verb: str, words: list[str], same: list[str]
) -> None:
    code, printed = run(verb, *words)
    assert code == 0, printed
    assert printed.strip()
    assert run(verb, *same) == (0, printed)


def test_a_filter_needs_no_quotes_of_hydra(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x=1").mkdir()
    code, printed = run("runs", f"root={tmp_path}/x=1", "filter=encoder=mit_b0,fold=0", "sort=-wall_time")
    assert (code, printed) == (0, f"No run folder below `{tmp_path}/x=1`.\n")


@pytest.mark.parametrize(
    ("verb", "words", "named"),
    [
        ("options", ["encodr"], ["`group` should be one of", "encoder", "`group = encodr`"]),
        ("options", ["encoder", "loss"], ["`hsl options` takes each of group, json once", "`loss`"]),
        ("options", ["gruop=loss"], ["group, json", "`gruop=loss`"]),
        ("options", ["entry=os.getcwd"], ["group, json", "`entry=os.getcwd`"]),
        ("options", ["--jsno"], ["group, json", "`--jsno`"]),
        ("options", ["-m"], ["group, json", "`-m`"]),
        ("options", ["json=maybe"], ["`json` should be true or false", "`json = maybe`"]),
        ("runs", ["sort=dream"], ["wall_time", "`sort = dream`"]),
        ("runs", ["limit=0"], ["`limit = 0`"]),
    ],
)
def test_words_that_a_verb_without_hydra_does_not_know(run: Run, verb: str, words: list[str], named: list[str]) -> None:
    expect(run(verb, *words), *named)


def test_waiting_threads_do_not_spin_unless_the_user_wants_it() -> None:
    program = "import os, sys, hsl.cli\nprint('torch' in sys.modules)\nhsl.cli.run_verb('options')\n"
    program += "print(os.environ['OMP_WAIT_POLICY'])"  # OpenMP reads it when torch is imported
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    for given, expected in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        done = subprocess.run(
            [sys.executable, "-c", program, "trainer"],
            env=environment | given,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[0] == "False"
        assert done.stdout.split()[-1] == expected
