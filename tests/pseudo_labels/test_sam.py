import sys
from pathlib import Path

import numpy as np
import pytest

from hsl.errors import ConfigError
from hsl.pseudo_labels.sam import load_sam, sam_votes

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM of random weights, small enough for a test."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    vision = transformers.SamVisionConfig(
        hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
        window_size=2, global_attn_indexes=[0], mlp_dim=32, num_pos_feats=8,
    )  # fmt: skip
    prompt = transformers.SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    transformers.SamProcessor(images).save_pretrained(folder)
    return folder


def test_segments_of_a_checkpoint(checkpoint: Path) -> None:
    sam = load_sam(checkpoint, points_per_side=4, predicted_iou=0.0, stability=0.0)
    segments = sam(IMAGE)
    assert segments
    assert {segment.shape for segment in segments} == {(40, 56)}
    assert {segment.dtype for segment in segments} == {np.dtype(bool)}
    for first, second in zip(segments, sam(IMAGE), strict=True):
        np.testing.assert_array_equal(first, second)

    votes = np.zeros((3, 40, 56), dtype=np.float32)
    votes[2] = 1
    covered = np.any(segments, axis=0)
    found = sam_votes(sam, IMAGE, votes)
    np.testing.assert_array_equal(found[2], covered)
    assert not found[:2].any()
    assert covered.any()


def test_a_strict_segmenter_has_no_opinion(checkpoint: Path) -> None:
    sam = load_sam(checkpoint, points_per_side=2, predicted_iou=1.0, stability=1.0)
    assert not sam_votes(sam, IMAGE, np.ones((2, 40, 56), dtype=np.float32)).any()


def test_votes_by_hand() -> None:
    left, middle, right = (np.zeros((1, 6), dtype=bool) for _ in range(3))
    left[0, :2], middle[0, 1:4], right[0, 5] = True, True, True
    votes = np.array([[[0.9, 0.2, 0.1, 0.3, 1.0, 0.0]], [[0.1, 0.8, 0.9, 0.7, 0.0, 0.0]]], dtype=np.float32)
    # left: 1.1 against 0.9; middle: 0.6 against 2.4; right: none has an opinion
    found = sam_votes(lambda _: [left, middle, right], np.zeros((1, 6, 3), np.uint8), votes)
    assert found[:, 0].tolist() == [[1, 0.5, 0, 0, 0, 0], [0, 0.5, 1, 1, 0, 0]]
    assert found.dtype == np.float32


def test_no_segment_no_opinion() -> None:
    votes = np.ones((2, 2, 2), dtype=np.float32)
    assert not sam_votes(lambda _: [], np.zeros((2, 2, 3), np.uint8), votes).any()
    assert (votes == 1).all()


def test_votes_of_another_size() -> None:
    with pytest.raises(ValueError, match="size of the picture"):
        sam_votes(lambda _: [], IMAGE, np.zeros((2, 56, 40), dtype=np.float32))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Put a checkpoint of SAM"):
        load_sam(tmp_path / "nothing")


def test_a_folder_of_another_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "sam"}', encoding="utf8")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint of SAM"):
        load_sam(tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf8")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"Install `hsl\[sam\]`"):
        load_sam(tmp_path)
