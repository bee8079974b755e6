"""Training pictures per second on a GPU at 384 px, beside published figures of a V100. Skipped without a GPU."""

import tempfile
import time
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from hsl.cli import conf_dir
from hsl.tasks.segmentation import SegmentationTask

PUBLISHED = {"convnext_tiny": 122.6, "mit_b3": 81.9, "maxvit_tiny": 65.1}  # pictures/s of a V100, batch 96, 384 px
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "V100": 125e12}  # dense bf16 (V100: fp16) FLOP/s
CLASSES, WARM_UP, STEPS = 16, 5, 20


def config(encoder: str, size: int, folder: str) -> DictConfig:
    overrides = [f"encoder={encoder}", "encoder.weights=null", f"data.image_size={size}", f"output_root={folder}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def make_task(encoder: str, size: int) -> SegmentationTask:
    with tempfile.TemporaryDirectory() as folder:
        counts = {"segmentation": torch.ones(CLASSES, dtype=torch.int64)}
        names = {"segmentation": [str(i) for i in range(CLASSES)]}
        task: SegmentationTask = instantiate(config(encoder, size, folder).task)(
            classes=names, class_counts=counts, presence_pixels=counts
        )
    return task


def measure(
    encoder: str, device: str, size: int, batch: int, *, compiled: bool, steps: int = STEPS
) -> dict[str, float]:
    """Pictures per second and floating-point operations per picture of forward, loss, backward and step."""
    task = make_task(encoder, size).to(device).train()
    network = torch.compile(task.network) if compiled else task.network
    optimizer = task.optimizer(task)
    image = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    masks = {"segmentation": torch.randint(0, CLASSES, (batch, size, size), device=device)}
    data = {"id": [], "image": image, "masks": masks}

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            total = task.weighting(task.loss(network(image), data))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        task.weighting(task.loss(task.network(image), data)).backward()
    for _ in range(WARM_UP):
        step()
    synchronize = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    spent = time.perf_counter() - start
    return {"pictures_per_s": steps * batch / spent, "flop_per_picture": counter.get_total_flops() / batch}


def run() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        print("gpu: no GPU at hand, nothing measured")
        return []
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK.items() if key in name), None)
    rows = []
    for encoder, published in PUBLISHED.items():
        for compiled in (False, True):
            found = measure(encoder, "cuda", 384, 96, compiled=compiled)
            speed = found["pictures_per_s"]
            share = f"{speed * found['flop_per_picture'] / peak:.1%} of the peak" if peak else "peak rate unknown"
            rows.append(
                {
                    "name": f"{encoder}, bf16, channels_last, {'compiled' if compiled else 'eager'}",
                    "sizes": {"pixels": 384, "batch": 96, "classes": CLASSES},
                    "versions": {"torch": torch.__version__, "gpu": name},
                    "ours": f"{speed:.1f} pictures/s, {share}",
                    "peer": f"{published} pictures/s (published, V100)",
                    "ratio": round(speed / published, 2),
                    "goal": "stated for comparison",
                    "holds": True,
                }
            )
    return rows
