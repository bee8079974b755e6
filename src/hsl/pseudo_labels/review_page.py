"""The page of the spot check: a local web application that shows one pseudo-label after the other."""

import base64
import hashlib
import hmac
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from hsl.batch import IGNORE_INDEX
from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.labels.label_table import LabelRow, LabelTable
from hsl.data.labels.review import Answer, Review
from hsl.errors import DataError
from hsl.pseudo_labels.refine import read_agreement
from hsl.pseudo_labels.spot_check import go_on, keep_answer

LONGEST = 1600
"""Pixels of the longer side of what is sent; larger pictures are shrunk."""
MOST_BYTES = 10_000
"""Of an answer; an id has at most some hundred."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that no other machine can reach it by."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Handler = Callable[[Request], Awaitable[Response]]


class Given(BaseModel):
    """What the page sends for a key."""

    model_config = ConfigDict(extra="forbid")
    id: str
    verdict: Answer | None


def build_app(labels: LabelTable, review: Review, colours: Sequence[str], token: str | None = None) -> FastAPI:
    """The application of one folder's review.

    Without a token only requests to this machine by its local names are answered, which keeps out pages elsewhere
    that point a name of theirs here. Answers are taken as JSON only, which no form of another page can send, and from
    this page only, as far as a browser says where they come from.

    Args:
        labels: The labels.
        review: Their review, as begun.
        colours: ``#rrggbb`` by class index, at least as many as classes.
        token: What every address has to hold as ``?token=``; none: the page is for this machine only.

    Returns:
        The page at ``/``, ``/state``, ``/answers``, ``/picture/<id>``, ``/overlay/<id>`` and, of refined labels, the
        first one at ``/first/<id>``; the last three for the pictures of the review only.

    Raises:
        DataError: The table of agreement is damaged.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_guard(token))
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=(*LOCAL_HOSTS, "[::1]"), www_redirect=False)
    app.add_exception_handler(DataError, _as_sentence)
    app.add_exception_handler(HTTPException, _as_sentence)
    rows = {row.id: row for row in labels.rows if row.id in review.answers}
    agreement = {row.id: row.agreement for row in read_agreement(labels)}
    page, script_hash = _page(labels, colours)

    def keep(given: Given) -> Response:
        return JSONResponse(_progress(keep_answer(labels.folder, given.id, given.verdict)))

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY.format(script_hash)})

    @app.get("/state")
    def state() -> Response:
        _, now = go_on(labels.folder)
        items = [
            _shown(rows[name]) | {"agreement": agreement.get(name), "flagged": name in review.flagged}
            for name in review.answers
        ]
        return JSONResponse({"labels": labels.sha256[:12], "items": items, **_progress(now)})

    @app.post("/answers")
    async def answers(request: Request) -> Response:
        given = await _read_answer(request)
        return given if isinstance(given, Response) else await run_in_threadpool(keep, given)

    @app.get("/picture/{name}")
    def picture(name: str) -> Response:
        return _image(_photo(rows[name]), "JPEG") if name in rows else _unknown(name)

    @app.get("/overlay/{name}")
    def overlay(name: str) -> Response:
        return _image(_coloured(labels.folder, rows[name], colours), "PNG") if name in rows else _unknown(name)

    @app.get("/first/{name}")
    def first(name: str) -> Response:
        if labels.first is None or name not in rows:
            return _unknown(name)
        return _image(_coloured(labels.first, rows[name], colours), "PNG")

    return app


def _guard(token: str | None) -> Callable[[Request, Handler], Awaitable[Response]]:
    async def guard(request: Request, call_next: Handler) -> Response:
        given = request.query_params.get("token", "")
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            return _refused(403, "The address should hold the token that `hsl label review` printed.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            return _refused(415, f"An answer should be application/json. Found `{kind}`.")
        origin, host = request.headers.get("origin"), request.headers.get("host")
        if request.method == "POST" and origin is not None and origin.partition("://")[2] != host:
            return _refused(403, f"An answer should come from this page. Found the origin `{origin}`.")
        response = await call_next(request)
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return guard


async def _read_answer(request: Request) -> Given | Response:
    content = b""
    async for chunk in request.stream():  # which may have no end
        content += chunk
        if len(content) > MOST_BYTES:
            return _refused(413, f"An answer should have at most {MOST_BYTES} bytes. Found more.")
    try:
        return Given.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "answer"
        return _refused(422, f"`{place}` of an answer should be right. Found: {first['msg']}.")


def _refused(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status, headers=_HEADERS)


def _unknown(name: str) -> Response:
    return _refused(404, f"`{name}` is no picture of this review.")


def _as_sentence(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _refused(error.status_code, f"`{request.method} {request.url.path}`: {error.detail}.")
    return _refused(409, str(error))


def _page(labels: LabelTable, colours: Sequence[str]) -> tuple[str, str]:
    """The page with styles and script inside, and the hash by which a browser runs that script only."""
    environment = Environment(
        loader=PackageLoader("hsl.pseudo_labels", "html"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = environment.get_template("review.js").render()
    shown = [(name, colours[i]) for i, name in enumerate(labels.classes) if i > 0]
    page = environment.get_template("review.html.j2").render(
        data=labels.data, folder=str(labels.folder), classes=shown, background=labels.classes[0],
        uncertain=_hex(_UNCERTAIN), script=script,
    )  # fmt: skip
    return page, base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _shown(row: LabelRow) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "image"}


def _progress(review: Review) -> dict[str, Any]:
    return {"verdicts": review.answers, "verdict": review.verdict, "settings": review.settings.model_dump()}


_UNCERTAIN = (217, 217, 217)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()


def _photo(row: LabelRow) -> Image.Image:
    return Image.fromarray(decode_image(_read(Path(row.image)), row.image))


def _coloured(folder: Path, row: LabelRow, colours: Sequence[str]) -> Image.Image:
    """The mask in the colours of the classes; the background is clear."""
    path = folder / "masks" / f"{row.id}.png"
    mask = decode_mask(_read(path), str(path))
    table: NDArray[np.uint8] = np.zeros((256, 4), np.uint8)
    for index, colour in enumerate(colours):
        table[index] = (*bytes.fromhex(colour[1:]), 255)
    table[0] = 0
    table[IGNORE_INDEX] = (*_UNCERTAIN, 255)
    return Image.fromarray(table[mask])


def _image(picture: Image.Image, kind: str) -> Response:
    if max(picture.size) > LONGEST:
        scale = LONGEST / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR if kind == "JPEG" else Image.Resampling.NEAREST)
    content = io.BytesIO()
    picture.save(content, kind, **({"quality": 92} if kind == "JPEG" else {"compress_level": 1}))
    return Response(
        content.getvalue(), media_type=f"image/{kind.lower()}", headers={"Cache-Control": "private, max-age=600"}
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}. Restore it, or make the labels anew.") from error
