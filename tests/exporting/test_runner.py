"""The path of a picture without torch is that with torch, step by step and as a whole."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from hsl.batch import DISTANCE
from hsl.data.files.decoding import Decoding as TorchDecoding
from hsl.data.files.records import FileSource, Record
from hsl.data.loading.dataset import collate, unmasked_pictures
from hsl.data.loading.transforms import EvaluationTransform, normalized
from hsl.ensembles.rows import Rows
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import votes
from hsl.errors import ConfigError, DataError, NonFiniteLogitsError
from hsl.exporting import runner as runner_module
from hsl.exporting.command_line import TABLE, main
from hsl.exporting.manifest import Combination, Decoding, Fusion, Manifest, Model, Window, write_manifest
from hsl.exporting.prediction import Prediction
from hsl.exporting.runner import Runner
from hsl.heads import Head
from hsl.inference.global_space import fuse
from hsl.inference.predictor import Predictor, Whole, to_source_size
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.tta import TestTimeAugmentation
from hsl.metrics.images.image_scores import predicted_labels
from hsl.metrics.images.imagewise import probabilities_of
from hsl.metrics.objects.watershed import objects_of
from hsl.verbs.ensemble.predicting import MemberSums, combine
from hsl.verbs.ensemble.stages.variants import Chosen

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
DENSE = Head("segmentation", "dense", ("clean", "rust", "hole"))
ONE, SEVERAL = Head("kind", "image", ("a", "b")), Head("signs", "image", ("x", "y", "z"), several=True)
MAP = Head(DISTANCE, "map")
SIZES = ((1, 1), (1, 37), (33, 47), (19, 64), (70, 50), (32, 32))


class Tiny(nn.Module):
    """A network that sees a few pixels around each, and the mean of all; it takes multiples of four pixels."""

    stride = 4

    def __init__(self, *heads: Head, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.known_heads = {head.name: head for head in heads}
        self.body = nn.Conv2d(3, 6, 5, padding=2)
        channels = {head.name: len(head.classes) or 1 for head in heads}
        self.last = nn.ModuleDict({name: nn.Conv2d(6, number, 1) for name, number in channels.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if image.shape[-2] % 4 or image.shape[-1] % 4:
            raise ValueError("not on the grid")
        features = self.body(image).relu() * 3
        outputs = {name: layer(features) for name, layer in self.last.items()}
        return {
            name: output.mean((2, 3)) if self.known_heads[name].kind == "image" else output
            for name, output in outputs.items()
        }


def open_session(networks: Mapping[str, Tiny], path: Path, threads: int | None) -> Callable[[Any], Any]:
    network = networks[path.name]

    @torch.inference_mode()
    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        assert batch.dtype == np.float32
        assert batch.flags.c_contiguous
        return {name: output.numpy() for name, output in network(torch.from_numpy(batch)).items()}

    return run


def model_of(network: Tiny, file: str = "model.onnx", size: tuple[int, int] | None = None, **others: Any) -> Model:
    return Model(file, tuple(network.known_heads.values()), size, MEAN, STD, **{"stride": 4, **others})


def write(folder: Path, models: Sequence[Model], heads: Sequence[Head], **others: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for model in models:
        (folder / model.file).write_bytes(model.file.encode())
    decoding = others.pop("decoding", Decoding(None, None, 1.0))
    write_manifest(folder, Manifest("tiny", "onnx", tuple(heads), decoding, tuple(models), **others))
    return folder


def opened(folder: Path, network: Tiny, model: Model, **others: Any) -> Runner:
    heads = [head for head in network.known_heads.values() if head.kind != "map"]
    thresholds = {SEVERAL.name: (0.5, 0.4, 0.6)} if SEVERAL.name in network.known_heads else {}
    write(folder, [model], others.pop("heads", heads), thresholds=thresholds, **others)
    return Runner.open(folder, open_session=partial(open_session, {model.file: network}))


@torch.inference_mode()
def by_torch(network: Tiny, predictor: Predictor, size: tuple[int, int] | None, image: np.ndarray) -> dict[str, Tensor]:
    """Logits of one picture, as `SegmentationTask.predict` makes them."""
    resized, _ = EvaluationTransform(size)(image, {}, (0,))
    batch: Any = {"image": torch.from_numpy(resized.transpose(2, 0, 1).copy())[None]}
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    sizes = torch.tensor([image.shape[:2]])
    outputs = predictor(network, normalized(batch, mean, std)["image"])
    kinds = network.known_heads
    return {
        head: (output if kinds[head].kind == "image" else to_source_size(output.float(), sizes))[0]
        for head, output in outputs.items()
    }


def check(runner: Runner, image: np.ndarray, expected: Mapping[str, Tensor]) -> None:
    prediction = runner.predict(image)
    for name, head in runner.heads.items():
        if head.kind == "image":
            wanted = probabilities_of(expected[name][None], head.several)[0].numpy()
        else:
            wanted = expected[name].softmax(0).numpy()
            assert wanted.shape[1:] == image.shape[:2]
            np.testing.assert_array_equal(prediction.class_map(name), wanted.argmax(0))
        np.testing.assert_allclose(prediction.probabilities[name], wanted, atol=1e-5)
        assert prediction.probabilities[name].dtype == np.float32


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour, with noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, 3)
    return np.clip(smooth.astype(int) + generator.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


WHOLE, WINDOWS = Whole(8), SlidingWindow(32, 20, 3, "cpu")
SOME = ("identity", "hflip", "rot90")
WAYS = {
    "whole": (WHOLE, None, {"stride": 8}),
    "resized": (WHOLE, (40, 24), {"stride": 8}),
    "orientations": (TestTimeAugmentation(WHOLE, "dihedral"), (40, 24), {
        "stride": 8,
        "orientations": ("identity", "rot90", "rot180", "rot270", "hflip", "antitranspose", "vflip", "transpose")}),
    "windows": (WINDOWS, None, {"window": Window(32, 20)}),
    "windows and orientations": (
        TestTimeAugmentation(WINDOWS, SOME), (56, 70), {"window": Window(32, 20), "orientations": SOME}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_looking_gives_the_numbers_of_torch(way: str, tmp_path: Path) -> None:
    predictor, size, others = WAYS[way]
    images = () if "windows" in way else (ONE, SEVERAL)
    network = Tiny(DENSE, *images)
    runner = opened(tmp_path / "artefact", network, model_of(network, size=size, **others))
    for height, width in SIZES:
        image = picture(height, width)
        check(runner, image, by_torch(network, predictor, size, image))


def test_pictures_travel_together_and_a_graph_may_take_one_number_and_size_of_them(tmp_path: Path) -> None:
    network = Tiny(DENSE, ONE)
    fixed = model_of(network, size=(24, 24), input_size=(24, 24), batch=2)
    images = [picture(*size, seed=i) for i, size in enumerate(SIZES)]
    for number, model in enumerate((model_of(network), model_of(network, size=(24, 24)), fixed)):
        runner = opened(tmp_path / str(number), network, model)
        for image, prediction in zip(images, runner.predict_many(images), strict=True):
            alone = runner.predict(image)
            for name in (DENSE.name, ONE.name):
                np.testing.assert_allclose(prediction.probabilities[name], alone.probabilities[name], atol=1e-6)
            assert prediction.labels(ONE.name) == alone.labels(ONE.name)
    only = opened(tmp_path / "only", network, model_of(network, input_size=(24, 24)))
    with pytest.raises(ConfigError, match=r"takes inputs of 24 x 24 pixels alone. Found 36 x 48. Export"):
        only.predict(images[2])
    only.predict(picture(24, 24))  # "or give pictures of this one"


def test_heads_of_several_tasks_are_fused_as_in_torch(tmp_path: Path) -> None:
    tasks = (Head("binary", "dense", ("no", "yes")), Head("kind_of", "dense", ("none", "p", "q")))
    tables = {"binary": (0, 1, 1, 1), "kind_of": (0, 1, 2, 2)}
    members = (0, 1, 2, 2)
    fused = Head("segmentation", "dense", ("none", "p", "q"))
    network = Tiny(*tasks)
    model = model_of(network, size=(24, 40), fusion=Fusion(fused.name, tables, members))
    runner = opened(tmp_path / "artefact", network, model, heads=(*tasks, fused))
    for members_of in (members, (0, 1, 1, 1)):  # the second merges classes that the heads tell apart
        image = picture(33, 47)
        logits = by_torch(network, WHOLE, (24, 40), image)
        tensors = {name: torch.tensor(table) for name, table in tables.items()}
        logits[fused.name] = fuse({n: one[None] for n, one in logits.items()}, tensors, torch.tensor(members_of))[0]
        model = model_of(network, size=(24, 40), fusion=Fusion(fused.name, tables, members_of))
        runner = opened(tmp_path / "artefact", network, model, heads=(*tasks, fused))
        check(runner, image, logits)


def test_objects_are_cut_apart_as_in_torch(tmp_path: Path) -> None:
    network = Tiny(DENSE, MAP)
    runner = opened(tmp_path / "artefact", network, model_of(network))
    image = picture(70, 50)
    outputs = by_torch(network, Whole(4), None, image)
    found = runner.predict(image)
    assert found.objects is not None
    np.testing.assert_array_equal(found.objects, objects_of(outputs[DENSE.name], outputs[DISTANCE]))
    assert found.objects.max() > 1
    assert list(found.heads) == [DENSE.name]


def encoded(image: np.ndarray, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, kind, **how)
    return buffer.getvalue()


def files(folder: Path) -> list[Path]:
    """One picture of every awkward kind."""
    image = picture(33, 47)
    deep = (picture(20, 31)[..., 0].astype(np.uint16) << 6) + 40
    palette = Pillow.fromarray(image).quantize(16)
    turned = Pillow.Exif()
    turned[274] = 6
    folder.mkdir()
    palette.save(folder / "palette.png")
    tifffile.imwrite(folder / "deep.tif", deep)
    for name, content in {
        "rgb.png": encoded(image, "PNG"),
        "grey.png": encoded(image[..., 0], "PNG"),
        "alpha.png": encoded(np.dstack([image, image[..., :1]]), "PNG"),
        "deep.png": cv2.imencode(".png", deep)[1].tobytes(),
        "turned.jpg": encoded(image, "JPEG", exif=turned),
        "pixel.webp": encoded(image[:1, :1], "WEBP", lossless=True),
        "still.gif": encoded(image, "GIF"),
        "map.bmp": encoded(image, "BMP"),
    }.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def test_files_are_read_as_hsl_predict_reads_them(tmp_path: Path) -> None:
    network, size = Tiny(DENSE, SEVERAL), (24, 40)
    decoding = Decoding((40.0, 16383.0), (13, 14), 1.0)
    runner = opened(tmp_path / "artefact", network, model_of(network, size=size), decoding=decoding)
    paths = files(tmp_path / "pictures")
    records = [Record(path.name, FileSource(path), None, None, {}, None) for path in paths]
    theirs = TorchDecoding(value_range=(40.0, 16383.0), bits=(13, 14), max_megapixels=1.0)
    dataset = unmasked_pictures(records, theirs, EvaluationTransform(size), DENSE.name, seed=0)
    for number, path in enumerate(paths):
        image = runner.decode(path.read_bytes(), path.name)
        batch = collate([dataset[0, number]])
        assert batch["size"].tolist() == [list(image.shape[:2])], path
        sample = EvaluationTransform(size)(image, {}, (0,))[0]
        np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0).numpy(), sample, err_msg=path.name)
        check(runner, image, by_torch(network, WHOLE, size, image))
    assert runner.decode((tmp_path / "pictures" / "turned.jpg").read_bytes(), "turned").shape == (47, 33, 3)


def test_an_ensemble_combines_as_hsl_predict_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    networks = {f"{name}{fold}": Tiny(DENSE, SEVERAL, seed=i) for i, (name, fold) in enumerate(["a0", "a1", "b0"])}
    models = [model_of(network, file, (24, 40), member=file[0]) for file, network in networks.items()]
    image = picture(33, 47)
    for variant in ("votes/soft", "votes/hard", "votes/logit", "votes/weighted", "stacking/logistic"):
        chosen = {
            head.name: Chosen(variant, rows, {**votes(), **stacking()}[variant], {})
            for head in (DENSE, SEVERAL)
            for rows in [some_rows(generator, head)]
        }
        temperatures = {DENSE.name: None, SEVERAL.name: 1.7}
        combinations = {
            name: Combination(one.combined.members, json.loads(json.dumps(one.combined.formula)), temperatures[name])
            for name, one in chosen.items()
        }
        heads, thresholds = (DENSE, SEVERAL), {SEVERAL.name: (0.5, 0.5, 0.5)}
        folder = write(tmp_path / "artefact", models, heads, combinations=combinations, thresholds=thresholds)
        sums = MemberSums(tmp_path / "maps")
        for file, network in networks.items():
            logits = by_torch(network, WHOLE, (24, 40), image)
            sums.add(file[0], DENSE, "p", logits[DENSE.name].softmax(0).numpy())
            sums.add(file[0], SEVERAL, "p", probabilities_of(logits[SEVERAL.name][None], several=True)[0].numpy())
        expected = {}
        for head in heads:
            values = np.stack(
                [sums.mean(name, head, "p", 2 if name == "a" else 1) for name in chosen[head.name].members]
            )
            expected[head.name] = combine(chosen[head.name], head, "p", values, temperatures[head.name])
        sums.clear()
        for keep in ("all", "one"):
            check(Runner.open(folder, keep=keep, open_session=partial(open_session, networks)), image, expected)


def some_rows(generator: np.random.Generator, head: Head) -> Rows:
    labels = generator.integers(0, 2, (12, 3)).astype(float) if head.several else np.arange(12) % 3
    ids = [f"r{i:02d}" for i in range(12)]
    return Rows.sorted(
        ids=ids, groups=ids, contents=ids, labels=labels, classes=head.classes, several=head.several,
        members=["a", "b"], probabilities=generator.dirichlet(np.ones(3), (2, 12)), folds=np.arange(12) % 3,
    )  # fmt: skip


def test_a_threshold_is_compared_in_64_bits_as_in_the_scores() -> None:
    value = np.float32(0.1)  # a little above 0.1
    limits = [0.1, float(value), float(np.nextafter(float(value), 1)), 1.0]
    for limit in limits:
        said = Prediction({"signs": Head("signs", "image", ("x",), True)}, {"signs": value[None]}, {"signs": (limit,)})
        expected = predicted_labels(value[None, None], several=True, thresholds=[limit])
        assert (said.labels("signs") == ["x"]) == bool(expected[0, 0])


def test_a_graph_that_is_not_as_the_manifest_says_is_refused(tmp_path: Path) -> None:
    network = Tiny(DENSE, ONE)
    image = picture(8, 8)
    wrong = Tiny(Head(DENSE.name, "dense", ("clean", "rust")), ONE)
    model = model_of(network)
    opened(tmp_path, network, model)
    runner = Runner.open(tmp_path, open_session=partial(open_session, {model.file: wrong}))
    with pytest.raises(ConfigError, match=r"give `segmentation` of shape \('B', 3, 8, 8\). Found \('B', 2, 8, 8\)"):
        runner.predict(image)
    with torch.no_grad():
        network.last[DENSE.name].bias[0] = torch.nan
    runner = Runner.open(tmp_path, open_session=partial(open_session, {model.file: network}))
    with pytest.raises(NonFiniteLogitsError, match=r"should be finite. Found others in `segmentation`. Look at the"):
        runner.predict(image)


def test_what_is_no_picture_or_too_large_is_told_with_a_way_out(tmp_path: Path) -> None:
    network = Tiny(DENSE)
    runner = opened(tmp_path / "artefact", network, model_of(network))
    with pytest.raises(DataError, match=r"`a.svg` should be PNG, JPEG, .*. Found SVG. Convert it to PNG"):
        runner.decode(b"<svg/>", "a.svg")
    large = np.zeros((1001, 1000), np.uint8)
    with pytest.raises(DataError, match=r"at most 1 megapixels. Found 1000 x 1001 .*raise .*`max_megapixels`"):
        runner.decode(encoded(large, "PNG"), "a.png")
    open_it = partial(open_session, {"model.onnx": network})
    more = Runner.open(tmp_path / "artefact", max_megapixels=2, open_session=open_it)
    assert more.decode(encoded(large, "PNG"), "a.png").shape == (1001, 1000, 3)
    deep = cv2.imencode(".png", np.full((4, 4), 900, np.uint16))[1].tobytes()
    model = model_of(network)
    runner = opened(tmp_path / "deep", network, model, decoding=Decoding(None, (16, 16), 1.0))
    with pytest.raises(DataError, match=r"Set `value_range=\[0,1023\]`"):
        runner.decode(deep, "a.png")
    ranged = Runner.open(tmp_path / "deep", value_range=(0, 1023), open_session=open_it)
    assert ranged.decode(deep, "a.png").max() == round(900 / 1023 * 255)


def test_the_command_writes_masks_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Tiny(DENSE, SEVERAL, MAP)
    runner = opened(tmp_path / "artefact", network, model_of(network))
    monkeypatch.setattr(runner_module, "session_of", lambda _: partial(open_session, {"model.onnx": network}))
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    image = picture(33, 47)
    good.write_bytes(encoded(image, "PNG"))
    bad.write_bytes(b"no picture")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "artefact"), str(good), "--output", str(out)]
    assert main([*arguments, str(bad)]) == 2  # the good one is done
    assert "bad.png` is not a picture" in capsys.readouterr().err
    assert main(arguments) == 0
    prediction = runner.predict(image)
    np.testing.assert_array_equal(cv2.imread(str(out / "masks" / "good.png"), -1), prediction.class_map(DENSE.name))
    np.testing.assert_array_equal(cv2.imread(str(out / "instances" / "good.png"), -1), prediction.objects)
    (row,) = json.loads((out / TABLE).read_text())
    assert row["id"] == "good"
    assert sum(row["pixels"][DENSE.name].values()) == 33 * 47
    assert row["labels"][SEVERAL.name]["prediction"] == prediction.labels(SEVERAL.name)
    assert row["objects"] == prediction.objects.max()

    for more, sentence in {
        ("--value_range=[3,1]",): "`--value_range` should be `[black,white]`, rising. Found `[3, 1]`",
        (str(tmp_path / "artefact" / ".." / "good.png"),): "Found `good` twice. Predict them apart",
    }.items():
        assert main([*arguments, *more]) == 2
        assert sentence in capsys.readouterr().err
    (out / "mine.txt").write_text("mine")
    assert main(arguments) == 2
    assert "`mine.txt`. Choose another `--output`." in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "other")]) == 0


def test_the_command_writes_a_mask_for_each_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = tuple(Head(name, "dense", ("absent", name)) for name in ("leaf", "spot"))
    network = Tiny(*channels)
    runner = opened(tmp_path / "artefact", network, model_of(network), channels=("leaf", "spot"))
    monkeypatch.setattr(runner_module, "session_of", lambda _: partial(open_session, {"model.onnx": network}))
    image = picture(20, 30)
    (tmp_path / "a.png").write_bytes(encoded(image, "PNG"))
    check(runner, image, by_torch(network, Whole(4), None, image))
    assert main([str(tmp_path / "artefact"), str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]) == 0
    for head in channels:
        mask = cv2.imread(str(tmp_path / "out" / "masks" / head.name / "a.png"), -1)
        np.testing.assert_array_equal(mask, 255 * runner.predict(image).class_map(head.name))
