"""Pictures that a gate of leaves should refuse, drawn from a seed, and the colour heuristic that the gate replaces.

`python -m benchmarks.gate draw FOLDER [LEAVES]` writes them by kind; `... heuristic REAL FOREIGN...` scores folders.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CHROMIUM = ["/usr/bin/chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
DOCS = Path(__file__).parents[1] / "docs"
SIZE = (256, 512)
Image = NDArray[np.uint8]


def noise(generator: np.random.Generator) -> Iterator[Image]:
    """Of single pixels, of patches of 2 to 64 pixels, in colour and in grey."""
    for i in range(60):
        cell, channels = 2 ** (i % 7), 3 if i % 2 else 1
        small = generator.integers(0, 256, (SIZE[0] // cell, SIZE[1] // cell, channels), dtype=np.uint8)
        grown = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC if i % 3 else cv2.INTER_NEAREST)
        yield np.broadcast_to(grown.reshape(*SIZE, -1), (*SIZE, 3)).astype(np.uint8)


def plain(value: int) -> Iterator[Image]:
    """One grey value, in four sizes."""
    for side in (64, 256, 512, 1000):
        yield np.full((side, 2 * side, 3), value, np.uint8)


def text(generator: np.random.Generator) -> Iterator[Image]:
    """Pages of dark words on white, and of white ones on dark."""
    words = " ".join(path.read_text(encoding="utf8") for path in sorted(DOCS.glob("*.md"))).split()
    for i in range(30):
        page = np.full((700, 500, 3), 255, np.uint8)
        for y in range(30, 690, 22):
            line = " ".join(generator.choice(words, 9)).encode("ascii", "ignore").decode()
            cv2.putText(page, line, (20, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
        yield page if i % 3 else (255 - page).astype(np.uint8)


def screens() -> Iterator[Image]:
    """Pages of our own documentation in a browser, wide and narrow, light and dark."""
    for i, path in enumerate(sorted(DOCS.glob("*.md"))[:24]):
        style = "background:#111;color:#ddd" if i % 3 == 0 else "background:#fff"
        with tempfile.TemporaryDirectory() as folder:
            html, png = Path(folder) / "page.html", Path(folder) / "page.png"
            shown = path.read_text(encoding="utf8").replace("<", "&lt;")
            html.write_text(f"<body style='{style};font:15px sans-serif'><pre>{shown}</pre></body>", encoding="utf8")
            window = "--window-size=1200,800" if i % 2 else "--window-size=400,800"
            subprocess.run(
                [*CHROMIUM, window, f"--screenshot={png}", f"file://{html}"], check=True, capture_output=True
            )
            yield np.asarray(cv2.imread(str(png)))


def broken(leaves: Path, generator: np.random.Generator) -> dict[str, Iterator[Image]]:
    """Real pictures that are none any more: in negative, with red for green, in shuffled tiles of 32 pixels."""
    images = [np.asarray(cv2.imread(str(path))) for path in sorted(leaves.iterdir())[::10]]
    return {
        "negative": ((255 - image).astype(np.uint8) for image in images),
        "red": (np.ascontiguousarray(image[..., [0, 2, 1]]) for image in images),
        "shuffled": (shuffled(image, generator) for image in images),
    }


def shuffled(image: Image, generator: np.random.Generator, side: int = 32) -> Image:
    rows, columns = image.shape[0] // side, image.shape[1] // side
    tiles = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    mixed = tiles.reshape(-1, side, side, 3)[generator.permutation(rows * columns)].reshape(tiles.shape)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(rows * side, columns * side, 3))


def draw(folder: Path, leaves: Path | None) -> None:
    """Write every kind to a folder of its own."""
    generator = np.random.default_rng(0)
    kinds = {"noise": noise(generator), "black": plain(0), "white": plain(255), "text": text(generator)}
    kinds |= {"screens": screens()} | (broken(leaves, generator) if leaves else {})
    for kind, images in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            cv2.imwrite(str(folder / kind / f"{kind}_{i:03d}.png"), image)


def heuristic(image: Image) -> float:
    """A score in [0, 1] as such validators have it: green 0.35, veins 0.30, elongation 0.25, edges 0.10.

    Green: share of pixels whose green is the largest channel, of at most one half. Veins: how much the gradients agree
    in direction. Elongation: of the largest green region, by its moments. Edges: share of Canny's, of at most 5 %.
    """
    small = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
    blue, green, red = (small[..., i].astype(np.float64) for i in range(3))
    mask = ((green > red) & (green > blue)).astype(np.uint8)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    across, down = cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)
    xx, yy, xy = (across**2).sum(), (down**2).sum(), (across * down).sum()
    veins = np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-9)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    elongation = 0.0
    if len(stats) > 1:
        y, x = np.nonzero(labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax())
        if len(x) > 9:
            short, long = np.sqrt(np.linalg.eigvalsh(np.cov(x, y)))
            elongation = 1 - short / max(long, 1e-9)
    edges = min(1.0, float((cv2.Canny(grey, 100, 200) > 0).mean()) / 0.05)
    return 0.35 * min(1.0, 2 * float(mask.mean())) + 0.30 * float(veins) + 0.25 * float(elongation) + 0.10 * edges


def main() -> None:
    word, *folders = sys.argv[1:]
    if word == "draw":
        draw(Path(folders[0]), Path(folders[1]) if folders[1:] else None)
        return
    scores = {folder: scores_of(Path(folder)) for folder in folders}
    limits = [0.5, float(np.quantile(scores[folders[0]], 0.02, method="lower"))]  # the second accepts 98 % of the first
    for folder, found in scores.items():
        accepted = ", ".join(f"{int((found >= limit).sum())} at {limit:.3f}" for limit in limits)
        print(f"{folder}: {len(found)} pictures, mean {found.mean():.2f}, accepted {accepted}")


def scores_of(folder: Path) -> NDArray[np.float64]:
    """By the heuristic, of every picture of a folder."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    return np.array([heuristic(np.asarray(cv2.imread(str(path)))) for path in paths])


if __name__ == "__main__":
    main()
