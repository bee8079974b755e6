"""Near-duplicates of 5000 pictures of 200 px in all eight orientations, decoding included.

The peer hashes every picture in its eight orientations with imagehash and compares all pairs of hashes.
Both are told to find the same planted copies: turned, with other light and another JPEG quality.
"""

import platform
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
from PIL import Image

from hsl.data.audit.near_duplicates import find_near_duplicates, turned
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import scan

PICTURES, SIDE, COPIES = 5000, 200, 250
WORKERS = 2
LIMIT_S = 90.0
HASH_DISTANCE = 10  # of 64 bits: what imagehash's users take
Pairs = set[tuple[int, int]]


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        paths, planted = write_pictures(Path(folder))
        before = peak_mib()
        ours, ours_cpu, found = timed(lambda: our_search(paths))
        memory = peak_mib() - before
        peer, peer_cpu, peer_found = timed(lambda: peer_search(paths))
    sizes = {
        "pictures": PICTURES,
        "side": SIDE,
        "orientations": 8,
        "workers": WORKERS,
        "planted_copies": len(planted),
        "ours_finds": len(found & planted),
        "ours_false": len(found - planted),
        "ours_cpu_s": round(ours_cpu, 1),
        "ours_memory_mib": round(memory),
        "peer_finds": len(peer_found & planted),
        "peer_false": len(peer_found - planted),
        "peer_cpu_s": round(peer_cpu, 1),
        "unit": "seconds",
    }
    packages = ("numpy", "opencv-python-headless", "pillow", "imagehash")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    common = {"sizes": sizes, "versions": versions, "ours": round(ours, 2)}
    complete = found == planted
    return [
        {
            "name": "audit: imagehash's time by ours",
            **common,
            "peer": round(peer, 2),
            "ratio": peer / ours,
            "goal": 1.0,
            "holds": complete and ours < peer,
        },
        {
            "name": "audit: 90 s by ours",
            **common,
            "peer": LIMIT_S,
            "ratio": LIMIT_S / ours,
            "goal": 1.0,
            "holds": complete and ours < LIMIT_S,
        },
    ]


def write_pictures(folder: Path) -> tuple[list[Path], Pairs]:
    """JPEGs with coarse and fine structure; the last ones are copies of the first ones."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{i:05d}.jpg" for i in range(PICTURES)]
    for i in range(PICTURES - COPIES):
        picture = np.full((SIDE, SIDE, 3), 128, np.float32)
        for grain, strength in ((6, 40), (25, 20), (100, 10)):
            noise = generator.standard_normal((grain, grain, 3)).astype(np.float32) * strength
            picture += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(paths[i]), np.clip(picture, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    planted = set()
    for i in range(COPIES):
        copy = turned(cv2.imread(str(paths[i])), i % 8) * 0.7 + 20
        path = paths[PICTURES - COPIES + i]
        cv2.imwrite(str(path), np.ascontiguousarray(copy).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 75])
        planted.add((i, PICTURES - COPIES + i))
    return paths, planted


def our_search(paths: list[Path]) -> Pairs:
    records = tuple(Record(path.stem, FileSource(path), None, None, {}, None) for path in paths)
    thumbnails = scan(Catalogue("synthetic", records, ("a", "b")), None, WORKERS).thumbnails
    pairs = find_near_duplicates(thumbnails)
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def peer_search(paths: list[Path]) -> Pairs:
    hashes = np.empty((8, PICTURES), np.uint64)
    for i, path in enumerate(paths):
        picture = Image.open(path).convert("L")
        for t, turn in enumerate((None, *Image.Transpose)):
            view = picture if turn is None else picture.transpose(turn)
            hashes[t, i] = np.packbits(imagehash.phash(view).hash).view(np.uint64)[0]
    found: Pairs = set()
    for i in range(PICTURES):
        distance = np.bitwise_count(hashes[:, i + 1 :] ^ hashes[0, i]).min(axis=0)
        found.update((i, i + 1 + int(j)) for j in np.flatnonzero(distance <= HASH_DISTANCE))
    return found


def timed(function: Any) -> tuple[float, float, Pairs]:
    start, start_cpu = time.perf_counter(), cpu_s()
    found = function()
    return time.perf_counter() - start, cpu_s() - start_cpu, found


def cpu_s() -> float:
    """Of this process and of those of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
