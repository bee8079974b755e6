"""`hsl serve`: a trained model over HTTP."""

import asyncio
import logging
import math
import re
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from hsl.errors import ConfigError, needs
from hsl.exporting.manifest import MANIFEST
from hsl.exporting.prediction import Prediction
from hsl.exporting.runner import Runner
from hsl.heads import Head
from hsl.run_folder.ensemble import is_ensemble
from hsl.serving.app import build_app
from hsl.serving.dispatcher import Dispatcher, Limits
from hsl.serving.guard import LOCAL_HOSTS, Access, Connection, Guard
from hsl.serving.served import OpenModel, Served, Verdict
from hsl.signals import Interrupted
from hsl.terminal import say
from hsl.verbs.label.review import listening
from hsl.verbs.opening.places import config_of

if TYPE_CHECKING:  # what it needs is an extra
    from hsl.serving.metrics import Metrics

EVERYWHERE = ("0.0.0.0", "::", "")
MOST_HEAD = 16 * 1024
"""Bytes of the head of a request."""
_TOKEN = re.compile(r"[!-~]{16,}")


def serve(cfg: DictConfig) -> None:
    """Serve a model until SIGTERM or Ctrl-C; what was taken is then answered first. SIGHUP opens the model anew.

    Raises:
        ConfigError: the model is none, the address cannot be had, or it lets other machines in without a token.
    """
    needs("`hsl serve`", ["python_multipart", "prometheus_client"], "serve")
    access, open_model = access_of(cfg), opener_of(cfg)
    limits = Limits(cfg.queue, cfg.batch, cfg.max_megapixels, cfg.upload_mb, cfg.timeout_s)
    logging.raiseExceptions = False  # a log that cannot be written, as on a full disk, stops no answer
    with listening(cfg.host, cfg.port) as opened:
        asyncio.run(run_server(open_model, limits, access, opened))


async def run_server(open_model: OpenModel, limits: Limits, access: Access, opened: socket.socket) -> None:
    """Open the model, listen, and end when a signal asks for it.

    Raises:
        UserError: the model cannot be opened.
    """
    from hsl.serving.metrics import Metrics  # what it needs is an extra

    dispatcher = Dispatcher(open_model, limits)
    await dispatcher.start()
    server = server_of(dispatcher, access, Metrics(dispatcher))
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, dispatcher.reload_soon)
    host, port = opened.getsockname()[:2]
    say(f"serving http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl+C ends it)")
    try:
        await server.serve([opened])
    except (KeyboardInterrupt, Interrupted):  # raised by uvicorn once it has answered what it took
        pass
    finally:
        await dispatcher.stop()


def server_of(dispatcher: Dispatcher, access: Access, metrics: "Metrics | None" = None) -> uvicorn.Server:
    """The server around a dispatcher that is started: all that strangers reach is behind its guard."""
    app = Guard(build_app(dispatcher, metrics), access, metrics.observe if metrics is not None else _unobserved)
    config = uvicorn.Config(
        app, http=Connection, ws="none", lifespan="off", log_config=None, log_level="error", access_log=False,
        server_header=False, proxy_headers=False, h11_max_incomplete_event_size=MOST_HEAD,
        timeout_graceful_shutdown=math.ceil(dispatcher.limits.timeout_s) + 5,
    )  # fmt: skip
    return uvicorn.Server(config)


def _unobserved(path: str, status: int, seconds: float) -> None:
    """Nobody counts."""


def access_of(cfg: DictConfig) -> Access:
    """Who may ask, from the settings.

    Raises:
        ConfigError: other machines could ask without a token, or the token is none.
    """
    token = _token(cfg)
    if cfg.host not in LOCAL_HOSTS and token is None:
        if not cfg.insecure:
            raise ConfigError(
                f"`host` should be 127.0.0.1 unless a token keeps strangers out. Found `host = {cfg.host}` and none. "
                "Give `token_file=FILE`, or say `insecure=true` if whoever reaches this machine may ask."
            )
        say(f"! Whoever reaches {cfg.host} may ask this server: there is no token.", error=True)
    own = () if cfg.host in EVERYWHERE else (cfg.host,)
    return Access(frozenset(name.lower() for name in (*LOCAL_HOSTS, *own, *cfg.hosts)), token)


def _token(cfg: DictConfig) -> str | None:
    if cfg.token is not None and cfg.token_file is not None:
        raise ConfigError("`token` and `token_file` should not both be given. Found both. Leave one out.")
    token = cfg.token
    if cfg.token_file is not None:
        file = cfg.token_file
        try:
            token = Path(file).read_text(encoding="utf8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"`token_file` should be a file that can be read. Found `{file}`: {error}. Correct its path or rights."
            ) from error
    if token is not None and not _TOKEN.fullmatch(str(token)):
        raise ConfigError(
            f"A token should have at least 16 letters, digits or signs, and no blanks. Found one of {len(str(token))}. "
            "Make one with `openssl rand -hex 16`."
        )
    return None if token is None else str(token)


def opener_of(cfg: DictConfig) -> OpenModel:
    """How the process that computes opens the model.

    Raises:
        ConfigError: it is no model.
    """
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(cfg.model)
    if (folder / MANIFEST).is_file():
        if cfg.gate is not None:
            raise ConfigError(
                f"`gate` should be left away for an artefact, which holds its own. Found `gate = {cfg.gate}`. Export "
                "the run with it: `hsl export run=RUN gate=GATE`."
            )
        return OpenArtefact(settings)
    if not is_ensemble(folder):
        config_of(cfg.model, "model")
    return OpenRun(settings)


@dataclass(frozen=True)
class OpenRun:
    """Opens a run folder or an ensemble as the settings of the verb say."""

    settings: dict[str, Any]

    def __call__(self) -> Served:
        from hsl.verbs.predict.served import ServedRun  # torch, which the process that listens does without

        return ServedRun.open(OmegaConf.create(self.settings))


@dataclass(frozen=True)
class OpenArtefact:
    """Opens what `hsl export` made; torch stays away."""

    settings: dict[str, Any]

    def __call__(self) -> Served:
        given = self.settings
        runner = Runner.open(
            given["model"], value_range=given["value_range"] and tuple(given["value_range"]),
            max_megapixels=given["max_megapixels"], keep=given["keep"],
        )  # fmt: skip
        return ServedArtefact(runner)


@dataclass(frozen=True, eq=False)
class ServedArtefact:
    """See `hsl.serving.served.Served`."""

    runner: Runner

    @property
    def heads(self) -> Mapping[str, Head]:
        """What a prediction says."""
        return self.runner.heads

    @property
    def gated(self) -> bool:
        """Whether a gate lies in the artefact."""
        return self.runner.gate is not None

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """As the runner decodes it."""
        return self.runner.decode(data, name)

    def predict_many(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """As the runner computes it."""
        return self.runner.predict_many(images)

    def judge(self, image: NDArray[np.uint8], said: Prediction) -> Verdict | None:
        """What the gate in the artefact says."""
        return self.runner.judge(image, said)

    def card(self) -> str:
        """The model card in the artefact."""
        file = self.runner.folder / "README.md"
        return file.read_text(encoding="utf8") if file.is_file() else f"# {self.runner.manifest.name}\n"
