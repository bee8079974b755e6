"""The paths of the server: what is asked of a model, how it is, and the page."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from hsl.reports.plots.palette import hex_colour
from hsl.serving.dispatcher import Dispatcher
from hsl.serving.guard import response_of
from hsl.serving.served import Answer, Facts, Format, Question, RefusedError, Work, as_json
from hsl.serving.uploads import Uploads, check_picture

if TYPE_CHECKING:  # what it needs is an extra
    from hsl.serving.metrics import Metrics

AT_ONCE = 2**17
"""Bytes of a picture whose header is read while others wait: some milliseconds, whatever is in it."""
_POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PROBLEM = {
    "type": "object", "required": ["code", "error"],
    "properties": {"code": {"type": "string"}, "error": {"type": "string"}},
}  # fmt: skip
_WHY = {
    400: ("the form or the `Host` is wrong", "bad_form"), 401: ("no token", "no_token"),
    403: ("asked from the page of another server", "foreign_origin"), 408: ("it comes too slowly", "slow_upload"),
    413: ("too many bytes or pixels", "too_many_pixels"), 415: ("not a picture", "not_a_picture"),
    422: ("a parameter is wrong, the picture is damaged, or the gate does not accept it", "not_accepted"),
    429: ("too many ask; `Retry-After` says when to ask again", "busy"),
    500: ("the model fails at this picture", "model_failed"),
    503: ("the model is not there; `Retry-After`", "worker_lost"), 504: ("no answer in time", "timeout"),
}  # fmt: skip
_BINARY = {"type": "string", "format": "binary"}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A picture: PNG, JPEG, TIFF, WebP, BMP, GIF (the first frame), JPEG 2000 or PPM.",
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "image/png": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["picture"], "properties": {"picture": _BINARY}}
            },
        },
    }
}
_AREA = {"type": "object", "required": ["pixels", "share", "confidence"]}
_PICTURE = {"type": "object", "required": ["width", "height"]}
_ABOUT = {
    "image": {"width": 640, "height": 480},
    "gate": {"accepted": True, "reasons": [], "scores": {"foreground": 0.4}},
}
_RUST = {"pixels": 3072, "share": 0.01, "confidence": 0.93}
_LAYOUT: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "predict": (
        {
            "type": "object", "required": ["image", "heads", "objects", "gate"],
            "properties": {
                "image": _PICTURE, "heads": {"type": "object"}, "objects": {"type": ["integer", "null"]},
                "gate": {"type": ["object", "null"]},
            },
        },
        {
            **_ABOUT, "objects": None,
            "heads": {
                "segmentation": {"kind": "dense", "areas": {"rust": _RUST}},
                "classification": {"kind": "image", "classes": ["rust"], "probabilities": {"rust": 0.9}},
            },
        },
    ),
    "segment": (
        {
            "type": "object", "required": ["image", "head", "classes", "areas", "gate"],
            "properties": {
                "image": _PICTURE, "areas": {"type": "object", "additionalProperties": _AREA},
                "runs": {"type": "object", "additionalProperties": {"type": "string"}},
                "polygons": {"type": "object", "additionalProperties": {"type": "array"}},
            },
        },
        {
            **_ABOUT, "head": "segmentation", "classes": ["leaf", "rust"], "areas": {"rust": _RUST},
            "polygons": {"rust": [{"outer": [[3, 4], [9, 4], [9, 8]], "holes": []}]},
        },
    ),
}  # fmt: skip
"""Of each path the schema of its JSON, and an example, for the OpenAPI."""
_FORMATS = (
    "png: class indices, as `hsl predict` writes them. overlay: the classes over the picture. rle: run lengths down "
    "the columns, from 1. polygons: outlines and holes. objects: ids in 16 bits, of a model that cuts objects apart."
)
Force = Annotated[bool, Query(description="Answer also where the gate does not accept the picture.")]


def build_app(dispatcher: Dispatcher, metrics: "Metrics | None" = None) -> FastAPI:
    """The application around a dispatcher that is started; `hsl.serving.guard.Guard` stands before it.

    Args:
        dispatcher: answers questions.
        metrics: what `/metrics` shows; ``None``: there is no such path.
    """
    app = FastAPI(
        title="hsl serve", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json",
        description="A trained segmentation model. Every error is JSON with a `code` that stays the same.",
    )  # fmt: skip
    for kind in (RefusedError, HTTPException, RequestValidationError, Exception):  # the last: mistakes of ours
        app.add_exception_handler(kind, _as_answer)
    ask = _asking(dispatcher)

    @app.post("/predict", summary="What the picture shows", **_documented(*_LAYOUT["predict"]))
    async def predict(request: Request, force: Force = False) -> Response:
        return await ask(request, "predict", force, None, "png")

    @app.post("/segment", summary="Where it shows what", **_documented(*_LAYOUT["segment"], "image/png"))
    async def segment(
        request: Request,
        format: Annotated[Format, Query(description=_FORMATS)] = "png",
        head: Annotated[str | None, Query(description="Whose masks, of several heads.", max_length=200)] = None,
        force: Force = False,
    ) -> Response:
        return await ask(request, "segment", force, head, format)

    @app.get("/health", summary="Whether the server lives", **_plain({"status": "ok"}))
    async def health() -> Response:
        return response_of(Answer(200, as_json({"status": "ok"})))

    @app.get("/ready", summary="Whether the model answers", **_plain({"status": "ready"}, 503))
    async def ready() -> Response:
        if not dispatcher.ready:
            raise RefusedError(503, "not_ready", "The model is being opened. Ask again later.", 2)
        return response_of(Answer(200, as_json({"status": "ready"})))

    @app.get("/model", summary="What the model is", **_plain({"heads": {}, "gate": False, "card": "# A model"}, 401))
    async def model() -> Response:
        return response_of(Answer(200, as_json(_model(dispatcher))))

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY.format(_SCRIPT_HASH)})

    if metrics is not None:
        _add_metrics(app, metrics.text)
    return app


def _asking(dispatcher: Dispatcher) -> Callable[[Request, Work, bool, str | None, Format], Awaitable[Response]]:
    """What both paths do: read the picture within its limits, ask, answer."""
    uploads = Uploads(int(1e6 * dispatcher.limits.upload_mb))

    async def ask(request: Request, work: Work, force: bool, head: str | None, wanted: Format) -> Response:
        async with uploads.picture(request) as data:
            name = _head(dispatcher.facts, head) if work == "segment" and wanted != "objects" else ""
            most = dispatcher.limits.megapixels
            small = len(data) <= AT_ONCE  # then a thread would take longer than its header
            header = check_picture(data, most) if small else await asyncio.to_thread(check_picture, data, most)
            question = Question(work, data, header.height * header.width, wanted, name, force)
            return response_of(await dispatcher.ask(question))

    return ask


def _add_metrics(app: FastAPI, text: Callable[[], bytes]) -> None:
    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(text(), media_type="text/plain; version=0.0.4")


def _head(facts: Facts | None, name: str | None) -> str:
    head = None if facts is None else facts.masked(name)
    if facts is not None and head is None:
        known = [one.name for one in facts.heads.values() if one.kind == "dense" and not one.several]
        if name is None:
            raise RefusedError(422, "no_masks", "`/segment` should be asked of a model that gives masks. Found "
                               "one that does not. Ask `/predict`.")  # fmt: skip
        raise RefusedError(422, "unknown_head", f"`head` should be one of {known}. Found another. Choose one.")
    return head.name if head is not None else ""


def _model(dispatcher: Dispatcher) -> Mapping[str, Any]:
    facts, limits = dispatcher.facts, dispatcher.limits
    if facts is None:
        raise RefusedError(503, "not_ready", "The model is being opened. Ask again later.", 2)
    heads = {
        head.name: {
            "kind": head.kind, "classes": list(head.classes), "several": head.several,
            "colours": [hex_colour(index) for index in range(len(head.classes))] if head.kind == "dense" else [],
        }
        for head in facts.heads.values()
    }  # fmt: skip
    masked = facts.masked(None)
    return {
        "heads": heads, "masks": None if masked is None else masked.name, "gate": facts.gated, "card": facts.card,
        "limits": {"megapixels": limits.megapixels, "upload_mb": limits.upload_mb, "timeout_s": limits.timeout_s},
    }  # fmt: skip


async def _as_answer(request: Request, error: Exception) -> Response:
    del request
    refused = _refused(error)
    response = response_of(refused.answer())
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    if refused.status in (408, 413, 415):  # what is left of the upload is not read
        response.headers["Connection"] = "close"
    return response


def _refused(error: Exception) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, HTTPException):
        names = {404: "not_found", 405: "method_not_allowed"}
        return RefusedError(error.status_code, names.get(error.status_code, "http_error"), f"{error.detail}.")
    if isinstance(error, RequestValidationError):
        wrong = "`, `".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        should = f"`{wrong}` should be as `/openapi.json` says. Found another value. Correct it."
        return RefusedError(422, "bad_parameter", should)
    return RefusedError(500, "internal", "The server failed at this request. Its log says why.")


def _documented(schema: Mapping[str, Any], example: Mapping[str, Any], *binary: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    content |= {kind: {"schema": _BINARY} for kind in binary}
    responses: dict[int | str, Any] = {200: {"description": "the answer", "content": content}}
    responses |= {status: _refusal(status) for status in _WHY}
    return {"openapi_extra": _UPLOAD, "responses": responses, "response_class": Response}


def _plain(example: Mapping[str, Any], *statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    responses = {200: {"description": "the answer", "content": content}}
    responses |= {status: _refusal(status) for status in (400, *statuses)}
    return {"responses": responses, "response_class": Response}


def _refusal(status: int) -> dict[str, Any]:
    why, code = _WHY[status]
    example = {"code": code, "error": "What should be, what was found, and what to do."}
    return {"description": why, "content": {"application/json": {"schema": _PROBLEM, "example": example}}}


def _rendered() -> tuple[str, str]:
    """The page with its script inside, and the hash by which a browser runs that script only."""
    environment = Environment(
        loader=PackageLoader("hsl.serving", "html"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = environment.get_template("drop.js").render()
    page = environment.get_template("drop.html.j2").render(script=script)
    return page, base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


_PAGE, _SCRIPT_HASH = _rendered()
