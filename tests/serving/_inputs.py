"""A model whose behaviour a picture chooses, a server in a thread, and pictures."""

import asyncio
import functools
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hsl.data.files.decode import decode_image
from hsl.errors import DataError
from hsl.exporting.prediction import Prediction
from hsl.heads import Head
from hsl.serving.dispatcher import Limits

HEADS = {
    "segmentation": Head("segmentation", "dense", ("ground", "leaf", "rust")),
    "kind": Head("kind", "image", ("healthy", "sick")),
}
DIES, SLEEPS, FAILS, REFUSES, FOREIGN = range(250, 255)
"""Red of the first pixel: what the model does with the picture."""
TOKEN = "correct horse battery staple".replace(" ", "-")


@dataclass(frozen=True)
class Judged:
    accepted: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, float]


@dataclass
class FakeModel:
    """A pixel is rust where it is bright, leaf where it is not dark; the picture is sick by its share of rust."""

    heads: Mapping[str, Head] = field(default_factory=lambda: HEADS)
    gated: bool = True

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        return decode_image(data, name)

    def predict_many(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        for image in images:
            red = image[0, 0, 0]
            if red == DIES:
                os._exit(9)
            if red == SLEEPS:
                time.sleep(image[0, 0, 1] / 50)
            if red == FAILS:
                raise RuntimeError("of the model, at /home/secret/file")
            if red == REFUSES:
                raise DataError("`picture` should be another. Send it.")
        return [self.predict(image) for image in images]

    def predict(self, image: NDArray[np.uint8]) -> Prediction:
        grey = image[..., 1].astype(np.float32) / 255
        masks = np.stack([0.9 * (grey < 0.25), 0.8 * ((grey >= 0.25) & (grey < 0.75)), 0.7 * (grey >= 0.75)])
        share = np.float32((grey >= 0.75).mean())
        values = {"segmentation": masks.astype(np.float32), "kind": np.array([1 - share, share], np.float32)}
        return Prediction(self.heads, values)

    def judge(self, image: NDArray[np.uint8], said: Prediction) -> Judged:
        foreign = image[0, 0, 0] == FOREIGN
        return Judged(
            not foreign, ("`distance` is above 1.",) if foreign else (), {"distance": 2.0 if foreign else 0.5}
        )

    def card(self) -> str:
        return "# Fake\n"


def opener(name: str) -> Any:
    """What opens a model in another process, which does not find this file by its name as a module."""
    return functools.partial(eval, f"__import__('runpy').run_path(path)[{name!r}]()", {"path": __file__})


def open_broken() -> FakeModel:
    raise DataError("`weights` should be there. Found none. Restore them.")


def picture(red: int = 0, size: tuple[int, int] = (12, 8), seed: int = 0, slowness: int = 25) -> NDArray[np.uint8]:
    """Random, of width and height; ``slowness`` fiftieths of a second where it sleeps."""
    image = np.random.default_rng(seed).integers(0, 250, (size[1], size[0], 3), dtype=np.uint8)
    image[0, 0] = (red, slowness if red == SLEEPS else 100, 0)
    return image


def png(image: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **options)
    return content.getvalue()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
    """Ask a server on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method or ("GET" if body is None else "POST"), path, body, named)
    response = connection.getresponse()
    reply = Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    connection.close()
    return reply


class Running:
    """A server in a thread of its own, until `stop`."""

    def __init__(self, limits: Limits, token: str | None = None) -> None:
        self.limits, self.token = limits, token
        self.started = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.thread.start()
        assert self.started.wait(30)

    async def _run(self) -> None:
        from hsl.serving.dispatcher import Dispatcher  # here, so that the other process does without
        from hsl.serving.guard import LOCAL_HOSTS, Access
        from hsl.verbs.serve import server_of

        self.loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(opener("FakeModel"), self.limits)
        await self.dispatcher.start()
        self.server = server_of(self.dispatcher, Access(frozenset(LOCAL_HOSTS), self.token))
        self.started.set()
        await self.server.serve([self.socket])
        await self.dispatcher.stop()

    def reload(self) -> None:
        asyncio.run_coroutine_threadsafe(self.dispatcher.reload(), self.loop).result(60)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        self.socket.close()
        assert not self.thread.is_alive()
