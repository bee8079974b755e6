"""Run folders are opened, and what is built from them."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from hsl.cli import conf_dir, run_verb
from hsl.config.targets import named_targets
from hsl.errors import ConfigError, UserError
from hsl.run_folder.provenance import read_provenance
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.opening.building import load_checkpoint_weights
from hsl.verbs.opening.opening import open_run, place_data
from hsl.verbs.train.train import train

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")

Make = Callable[..., DictConfig]
Verb = Callable[..., tuple[int, str]]
ALLOWED = frozenset(named_targets(conf_dir()))


@pytest.fixture(scope="module")
def trained(module_tiny: Make) -> Path:
    """A finished run; not to be changed."""
    cfg = module_tiny("trainer.max_epochs=1")
    train(cfg)
    return next(Path(cfg.output_root).glob("*/fold0/*"))


@pytest.fixture
def stranger(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be made hostile."""
    return Path(shutil.copytree(trained, tmp_path / "stranger"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "pictures" / "a.png")
    return tmp_path / "pictures"


@pytest.fixture
def verb(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Verb:
    """Runs `predict`, `evaluate` or `analyze` on a run in this process: exit code, and everything printed."""
    further = {
        "predict": [f"input={pictures}", f"output={tmp_path / 'out'}"],
        "evaluate": [f"output_root={tmp_path / 'own'}"],
        "analyze": [f"output={tmp_path / 'analysis'}", f"output_root={tmp_path / 'own'}"],
    }

    def call(name: str, run: Path, *arguments: str) -> tuple[int, str]:
        key = f"runs=[{run}]" if name == "analyze" else f"run={run}"
        monkeypatch.setattr(sys, "argv", ["hsl", key, *further[name], *arguments])
        monkeypatch.setenv("HSL_ONE_SENTENCE", "")
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        code = 0
        try:
            run_verb(name)
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return call


def harm(run: Path, key: str, value: Any) -> None:
    """Set a key of config.yaml, whatever it is."""
    cfg = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg))


def payload(mark: Path) -> dict[str, Any]:
    """What runs a shell command today, and is on no block-list."""
    return {"_target_": "torch.utils.collect_env.run", "command": f"touch {mark}"}


def refused(result: tuple[int, str]) -> str:
    code, printed = result
    assert code == 2, printed
    assert "Traceback" not in printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, printed
    return errors[0]


@pytest.mark.parametrize("name", ["predict", "evaluate", "analyze"])
def test_a_command_in_the_config_is_not_run(verb: Verb, stranger: Path, tmp_path: Path, name: str) -> None:
    key = "data.reader" if name == "predict" else "task.network.decoder.more"
    harm(stranger, key, payload(tmp_path / "mark"))
    said = refused(verb(name, stranger))
    assert not (tmp_path / "mark").exists()
    assert f"`{key}._target_ = torch.utils.collect_env.run`" in said
    assert "`trust=[torch.utils.collect_env.run]`" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key",
    ["task", "task.loss", "task.more", "data", "data.more", "callbacks.more", "trainer.x", "logger", "metrics", "more"],
)
def test_nor_anywhere_else(stranger: Path, tmp_path: Path, key: str) -> None:
    harm(stranger, key, {"more": [1, {"deep": payload(tmp_path / "mark")}]})
    with pytest.raises(ConfigError, match=r"trust=\[torch\.utils\.collect_env\.run\]"):
        open_run(str(stranger), ALLOWED)
    assert not (tmp_path / "mark").exists()


def test_what_is_trusted_by_its_name_is_run(verb: Verb, stranger: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The way out that the message names, followed: a decoder of one's own."""
    (tmp_path / "mydecoders.py").write_text(
        "from hsl.models.decoders import unet\n\n\ndef mine(*a, **b):\n    return unet(*a, **b)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    harm(stranger, "task.network.decoder._target_", "mydecoders.mine")
    assert "`trust=[mydecoders.mine]`" in refused(verb("predict", stranger))
    assert "mydecoders" not in sys.modules
    code, printed = verb("predict", stranger, "trust=[mydecoders.mine]")
    assert code == 0, printed
    assert (tmp_path / "out" / "areas.csv").is_file()


@pytest.mark.parametrize("name", ["predict", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_it_writes_where_its_user_says(verb: Verb, stranger: Path, tmp_path: Path, name: str) -> None:
    """Arguments of what is allowed: places where a logger, a trainer, a callback or a cache would write."""
    away = tmp_path / "away"
    harm(stranger, "logger", {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": str(away / "log")})
    harm(stranger, "trainer.default_root_dir", str(away / "root"))
    harm(stranger, "trainer.profiler", "advanced")
    harm(stranger, "callbacks.history.path", str(away / "history.csv"))
    harm(stranger, "data.cache", "disk")
    harm(stranger, "data.cache_dir", str(away / "cache"))
    harm(stranger, "data.audit.cache_dir", str(away / "audit"))
    harm(stranger, "run_dir", str(away / "run"))
    harm(stranger, "output_root", str(away / "outputs"))
    code, printed = verb(name, stranger)
    assert code == 0, printed
    assert not away.exists()
    assert (tmp_path / "out" / "masks" / "a.png").is_file() or list((tmp_path / "own" / ".cache").iterdir())


def test_data_are_not_drawn_or_fetched_where_a_run_says(verb: Verb, stranger: Path, tmp_path: Path) -> None:
    harm(stranger, "data.root", str(tmp_path / "gone"))
    assert "`data_root` should say where the data of the run lie now" in refused(verb("evaluate", stranger))
    assert not (tmp_path / "gone").exists()


def test_the_data_are_where_data_root_says(trained: Path, tmp_path: Path) -> None:
    _, cfg = open_run(str(trained), ALLOWED)
    cfg.data.teachers = "gone"  # read in training alone
    place_data(cfg, "someone/dataset", str(tmp_path))
    assert cfg.data.teachers is None
    assert (cfg.data.root, cfg.data.cache_dir, cfg.data.audit.cache_dir) == ("someone/dataset", *[str(tmp_path)] * 2)


class Evil:
    """A pickle that touches a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_in_a_checkpoint_is_not_run(verb: Verb, stranger: Path, tmp_path: Path) -> None:
    checkpoint = stranger / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "more": Evil(tmp_path / "mark")}, checkpoint)
    assert f"`{checkpoint}`" in refused(verb("predict", stranger))
    assert not (tmp_path / "mark").exists()


def test_a_pickle_that_timm_would_read_is_not_run(verb: Verb, stranger: Path, tmp_path: Path) -> None:
    torch.save(Evil(tmp_path / "mark"), tmp_path / "evil.pth")
    harm(stranger, "task.network.encoder.name", "tu-mobilenetv3_small_050.lamb_in1k")
    harm(stranger, "task.network.encoder.checkpoint_path", str(tmp_path / "evil.pth"))
    assert "`encoder.checkpoint_path` should not be given" in refused(verb("predict", stranger))
    assert not (tmp_path / "mark").exists()


def test_weights_named_elsewhere_in_the_model_are_not_read(verb: Verb, stranger: Path, tmp_path: Path) -> None:
    encoder = OmegaConf.to_container(OmegaConf.load(stranger / "config.yaml").encoder)
    harm(stranger, "task.network.decoder", {**encoder, "weights": str(tmp_path / "nowhere.pth"), "package": "a.b"})
    said = refused(verb("predict", stranger))
    assert "nowhere" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 3\n", "no map `callbacks`"),
        ("", "no map `callbacks`"),
        ("x", "no map `callbacks`"),
        ("- 1\n", "config.yaml"),
        ("a: [", "is not valid YAML"),
        ("a: &x [1]\nb: *x\n", "anchor or a tag"),
        ("a: !!python/object/apply:os.system ['touch mark']\n", "anchor or a tag"),
        ("a: !!timestamp x\n", "anchor or a tag"),
        ("[" * 100 + "]" * 100, "levels"),
        ("[" * 100_000, "levels"),
        ("a: " + "9" * 5000, "config.yaml"),
        ("a: 1\na: 2\n", "config.yaml"),
        ("a: ${oc.env:HOME}\n", "plain values"),
        ("a: ${\n", "config.yaml"),
        ("\x00", "is not valid YAML"),
        ("null: 1\n", "config.yaml"),
        ("callbacks: {}\ndata: {}\nencoder: {}\ntrainer: {}\ntask: {network: [1]}\n", "no map `task.network.encoder`"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        open_run(str(tmp_path), ALLOWED)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_another_version(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "config.yaml", tmp_path)
    harm(tmp_path, "data.hard_examples", None)
    with pytest.raises(ConfigError, match=r"run of this version of hsl.*`data\.hard_examples`.*provenance\.json"):
        open_run(str(tmp_path), ALLOWED)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml") as caught:
        open_run(str(tmp_path), ALLOWED)
    assert f"`run = {tmp_path}`" in str(caught.value)


UNFIT = [
    ("task.network.decoder.channels", [-1, 10**12, 16, 16, 16]),
    ("task._target_", "hsl.losses.overlap.Dice"),
    ("task.network.heads", {"_target_": "hsl.losses.overlap.Dice"}),
    ("task.loss", {"_target_": "lightning.Trainer"}),
    ("task.network.encoder", {"_target_": "builtins.list"}),
    ("data.normalization", {"mean": ["x"], "std": {}}),
]


@pytest.mark.parametrize(("key", "value"), UNFIT[:2])
def test_parts_that_do_not_fit_are_told_in_a_sentence(verb: Verb, stranger: Path, key: str, value: Any) -> None:
    harm(stranger, key, value)
    refused(verb("predict", stranger))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *[("predict", *one) for one in UNFIT[2:]],
        *[("evaluate", *one) for one in UNFIT],
        ("evaluate", "data.reader", {"_target_": "builtins.list"}),
        ("evaluate", "trainer._target_", "hsl.losses.overlap.Dice"),
        ("evaluate", "trainer.precision", "many"),
    ],
)
def test_nor_do_others(verb: Verb, stranger: Path, name: str, key: str, value: Any) -> None:
    harm(stranger, key, value)
    refused(verb(name, stranger))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", None),
        ("classes", {"segmentation": 3}),
        ("class_counts", "x"),
        ("members", [[1, "a"]]),
    ],
)
def test_a_provenance_that_does_not_fit_is_told_in_a_sentence(verb: Verb, stranger: Path, key: str, value: Any) -> None:
    facts = read_provenance(stranger)
    (stranger / "provenance.json").write_text(json.dumps({**facts, key: value}))
    refused(verb("predict", stranger))


def test_a_stored_config_is_plain(trained: Path) -> None:
    """What we write ourselves passes the rules for what others wrote."""
    text = (trained / "config.yaml").read_text()
    assert not [event for event in yaml.parse(text) if getattr(event, "anchor", None) or getattr(event, "tag", None)]
    assert "${" not in text


# A checkpoint that cannot be used is refused by its name.


def task() -> SegmentationTask:
    """Any module will do: only its weights are asked for."""
    return cast(SegmentationTask, nn.Linear(2, 1))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_checkpoint_weights(task(), path)
    assert f"`{path}`" in str(caught.value)
    return str(caught.value)


def test_weights_are_loaded(tmp_path: Path) -> None:
    trained, fresh = task(), task()
    torch.save({"state_dict": trained.state_dict(), "epoch": 1}, tmp_path / "best.ckpt")
    load_checkpoint_weights(fresh, tmp_path / "best.ckpt")
    torch.testing.assert_close(dict(fresh.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)


def test_a_missing_one(tmp_path: Path) -> None:
    assert "Has the run finished?" in refusal(tmp_path / "best.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_broken_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(content)
    assert "should be a checkpoint of hsl" in refusal(path)


def test_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": task().state_dict()}, path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "should be a checkpoint of hsl" in refusal(path)


def test_one_that_would_run_code(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": task().state_dict(), "more": Path("object")}, path)
    assert "should be a checkpoint of hsl" in refusal(path)


def test_one_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"weights": task().state_dict()}, path)
    assert "state_dict" in refusal(path)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"weight": torch.zeros(1, 2)}, "bias"),  # one missing
        ({"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "more": torch.zeros(1)}, "more"),
        ({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, "size mismatch for weight"),
    ],
)
def test_one_of_another_model(tmp_path: Path, other: dict[str, Any], named: str) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": other}, path)
    message = refusal(path)
    assert "should fit the model of this run" in message
    assert named in message


def test_one_of_another_model_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)]).state_dict()}, path)
    said = refusal(path)
    assert "\n" not in said
    assert "0.weight" in said
    assert len(said) < 500 + len(str(path))
