"""A step under every gradient aggregation beside plain summation, torchjd and one full backward pass per task."""

import time
import weakref
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torchjd.aggregation import AlignedMTL
from torchjd.autojac import jac_to_grad, mtl_backward

from hsl.cli import conf_dir
from hsl.weighting.base import add

TASKS, CLASSES, WIDTH, SIZE, BATCH = 7, 5, 64, 256, 4
ROUNDS = 5
METHODS = ("pcgrad", "nash_mtl", "mgda", "imgrad", "cagrad", "imtl_g", "aligned_mtl", "upgrad")
EVERY = 10

Step = Callable[[], None]


class MLPDecoder(nn.Module):
    """Each level to one width, upsampled to stride 4, concatenated, fused, classified: SegFormer's, narrower."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels)
        self.fuse = nn.Sequential(
            nn.Conv2d(WIDTH * len(channels), WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.classify = nn.Conv2d(WIDTH, CLASSES, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        parts = [
            F.interpolate(project(level), size=size, mode="bilinear", align_corners=False)
            for project, level in zip(self.project, features, strict=True)
        ]
        logits: Tensor = self.classify(self.fuse(torch.cat(parts, 1)))
        return logits


class Bench:
    """One network and one batch, stepped in different ways."""

    def __init__(self, crossed: bool = False) -> None:
        torch.manual_seed(0)
        self.crossed = crossed  # every task reads the mean of all, as attention between the tasks does
        self.encoder = get_encoder("mit_b0", weights=None)
        self.decoders = nn.ModuleList(MLPDecoder(self.encoder.out_channels[2:]) for _ in range(TASKS))
        self.image = torch.randn(BATCH, 3, SIZE, SIZE)
        self.masks = torch.randint(0, CLASSES, (TASKS, BATCH, SIZE // 4, SIZE // 4))
        parameters = [*self.encoder.parameters(), *self.decoders.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-6)

    def objectives(self, share: Callable[[list[Tensor]], list[Tensor]]) -> dict[str, Tensor]:
        features = share(self.encoder(self.image)[2:])
        outputs = [decoder(features) for decoder in self.decoders]
        if self.crossed:
            context = torch.stack([F.avg_pool2d(out, 8) for out in outputs]).mean(0)
            outputs = [out + F.interpolate(context, size=out.shape[-2:]) for out in outputs]
        pairs = enumerate(zip(outputs, self.masks, strict=True))
        return {f"task{i}": F.cross_entropy(out, mask) for i, (out, mask) in pairs}

    def under(self, weighting: nn.Module) -> Step:
        def step() -> None:
            self.optimizer.zero_grad()
            weighting(self.objectives(weighting.share)).backward()
            self.optimizer.step()

        return step

    def torchjd(self) -> None:
        features: list[Tensor] = []

        def remember(levels: list[Tensor]) -> list[Tensor]:
            features.extend(level.view_as(level) for level in levels)  # else the deeper ones lead through the others
            return features

        self.optimizer.zero_grad()
        losses = list(self.objectives(remember).values())
        mtl_backward(losses, features=features)
        jac_to_grad(self.encoder.parameters(), AlignedMTL())
        self.optimizer.step()

    def one_backward_per_task(self) -> None:
        """The gradient of each task with respect to every parameter of the encoder, then the plain sum."""
        self.optimizer.zero_grad()
        losses = list(self.objectives(list).values())
        shared = list(self.encoder.parameters())
        rows = [torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True) for loss in losses]
        matrix = torch.stack([torch.cat([g.flatten() for g in row if g is not None]) for row in rows])
        _ = matrix @ matrix.T
        add(losses).backward()
        self.optimizer.step()


class LiveBytes(TorchDispatchMode):
    """Peak of the bytes in the storages that operations made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self.known = 0, 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return made

    def count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.release, key, size)

    def release(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def weightings() -> dict[str, nn.Module]:
    weights = {f"task{i}": 1.0 for i in range(TASKS)}
    made = {}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for name in ("fixed", *METHODS):
            made[name] = instantiate(compose("train", [f"weighting={name}"]).weighting)(weights=weights)
            if name in METHODS:
                cfg = compose("train", [f"weighting={name}", f"weighting.update_every={EVERY}"])
                made[f"{name}, update_every={EVERY}"] = instantiate(cfg.weighting)(weights=weights)
    return made


def seconds(step: Step) -> float:
    """Of the processor, on one thread: what other processes take does not count."""
    start = time.process_time()
    step()
    return time.process_time() - start


def peak(step: Step) -> int:
    with LiveBytes() as counter:
        step()
    return counter.peak


def measure(steps: dict[str, Step]) -> dict[str, float]:
    """Least seconds of each, in turn, so that a slow minute of the machine hits all."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # the first step of `update_every` solves, those measured do not
        step()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            taken[name].append(seconds(step))
    return {name: min(values) for name, values in taken.items()}


def row(name: str, ours: str, peer: str, ratio: float, goal: float) -> dict[str, Any]:
    return {
        "name": name,
        "sizes": {"tasks": TASKS, "pixels": SIZE, "batch": BATCH, "width": WIDTH, "rounds": ROUNDS, "threads": 1},
        "versions": {"torch": torch.__version__, "torchjd": version("torchjd")},
        "ours": ours,
        "peer": peer,
        "ratio": round(ratio, 3),
        "goal": f"<= {goal}",
        "holds": ratio <= goal,
    }


def crossed() -> dict[str, Any]:
    """The dearest case: every objective reaches every decoder, so pass 1 crosses all of them once per task."""
    bench, made = Bench(crossed=True), weightings()
    taken = measure({name: bench.under(made[name]) for name in ("fixed", "mgda", f"mgda, update_every={EVERY}")})
    plain, one, reused = taken.values()
    many = (one + (EVERY - 1) * reused) / EVERY
    ours = f"{many:.3f} s; a step that solves {one:.3f} s, one that does not {reused:.3f} s"
    name = f"step under mgda, update_every={EVERY}, every task reads all others"
    return row(name, ours, f"{plain:.3f} s (plain summation)", many / plain, 1.5)


def run() -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    bench, made = Bench(), weightings()
    steps: dict[str, Step] = {name: bench.under(weighting) for name, weighting in made.items()}
    others = {"torchjd, aligned_mtl": bench.torchjd, "one backward per task": bench.one_backward_per_task}
    taken = measure(steps | others)
    plain = taken["fixed"]
    rows = []
    for name in METHODS:
        one, reused = taken[name], taken[f"{name}, update_every={EVERY}"]
        many = (one + (EVERY - 1) * reused) / EVERY
        against = f"{plain:.3f} s (plain summation)"
        rows.append(row(f"step under {name}", f"{one:.3f} s", against, one / plain, 1.5))
        rows.append(row(f"step under {name}, update_every={EVERY}", f"{many:.3f} s", against, many / plain, 1.1))
    slowest = max(taken[name] for name in METHODS)
    for name in others:
        text = f"{taken[name]:.3f} s, {taken[name] / plain:.2f} of plain summation"
        rows.append(row(f"slowest of ours beside {name}", f"{slowest:.3f} s", text, slowest / taken[name], 1.0))
    rows.append(crossed())
    memory, least = max(peak(steps[name]) for name in METHODS), peak(steps["fixed"])
    ours, peer = f"{memory / 1e6:.0f} MB", f"{least / 1e6:.0f} MB (plain summation)"
    rows.append(row("peak memory of a step, the largest of ours", ours, peer, memory / least, 1.3))
    torch.set_num_threads(threads)
    return rows
