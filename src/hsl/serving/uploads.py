"""The picture of a request, read into memory under a limit that is counted while it comes; nothing touches a disk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request

from hsl.data.files.headers import Header, read_header
from hsl.errors import DataError
from hsl.serving.served import RefusedError

UPLOAD_S = 30.0
"""Seconds in which all of a picture has to come."""
HELD_MB = 512
"""Megabytes of pictures that come, wait or are computed at one time."""
FRAME = 64 * 1024
"""What a form may have around its picture."""
DRAINED_S = 2.0
MULTIPART = "multipart/form-data"
KINDS = ("application/octet-stream", "")
_COUNTED_BITS = 32


@dataclass(eq=False)
class Uploads:
    """What is held of pictures.

    Attributes:
        limit: bytes of one.
        held: bytes of all that are held now.
    """

    limit: int
    held: int = field(default=0)

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[bytes]:
        """The bytes of the picture of a request, held until the end of the context.

        Raises:
            RefusedError: there are too many, they come too slowly, or not as a picture.
        """
        taken = 0
        try:
            kind, _, rest = request.headers.get("content-type", "").partition(";")
            kind = kind.strip().lower()
            if not (kind == MULTIPART or kind in KINDS or kind.startswith("image/")):
                await _drain(request, self.limit)
                raise RefusedError(415, "unsupported_media_type", "`Content-Type` should be `image/...`, "
                              f"`application/octet-stream` or `{MULTIPART}`. Found another.")  # fmt: skip
            most = self.limit + (FRAME if kind == MULTIPART else 0)
            chunks = []
            try:
                async with asyncio.timeout(UPLOAD_S):
                    async for chunk in request.stream():
                        taken += len(chunk)
                        self.held += len(chunk)
                        if taken > most:
                            raise self._too_large()
                        if self.held > HELD_MB * 1e6:
                            raise RefusedError(429, "busy", "Too many pictures come at one time. Ask again later.", 1)
                        chunks.append(chunk)
            except TimeoutError:
                raise RefusedError(408, "slow_upload", f"All of a picture should come in {UPLOAD_S:g} s. "
                              "Found that it does not. Send a smaller one.") from None  # fmt: skip
            except ClientDisconnect:
                raise RefusedError(400, "gone", "The sender went away before all of the picture came.") from None
            except RefusedError:
                chunks.clear()
                await _drain(request, self.limit)
                raise
            body = b"".join(chunks)
            del chunks
            picture = await asyncio.to_thread(file_of, body, rest) if kind == MULTIPART else body
            if len(picture) > self.limit:
                raise self._too_large()
            yield picture
        finally:
            self.held -= taken

    def _too_large(self) -> RefusedError:
        megabytes = f"{self.limit / 1e6:g}"
        return RefusedError(413, "too_large", f"A picture should have at most {megabytes} MB. Found more. Shrink it.")


async def _drain(request: Request, most: int) -> None:
    """Let a sender that is refused come to the end, within bounds: most read no answer before they have."""
    try:
        async with asyncio.timeout(DRAINED_S):
            while most > 0:
                message = await request.receive()
                most -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def file_of(body: bytes, parameters: str) -> bytes:
    """The first file of a form.

    Args:
        body: of the request.
        parameters: what follows ``multipart/form-data;`` in its type.

    Raises:
        RefusedError: it is no such form, or has no file.
    """
    from python_multipart.exceptions import FormParserError  # an extra, see `hsl.verbs.serve`
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(f"{MULTIPART};{parameters}")
    wrong = RefusedError(400, "bad_form", "A form should have one file, the picture. Found none, or a damaged form.")
    heads, parts = [bytearray()], [bytearray()]

    def begin() -> None:
        heads.append(bytearray())
        parts.append(bytearray())

    callbacks = {
        "on_part_begin": begin,
        "on_header_field": lambda data, start, end: heads[-1].extend(data[start:end]),
        "on_header_value": lambda data, start, end: heads[-1].extend(b": " + data[start:end]),
        "on_header_end": lambda: heads[-1].extend(b"\r\n"),
        "on_part_data": lambda data, start, end: parts[-1].extend(memoryview(data)[start:end]),
    }
    try:
        parser = MultipartParser(options.get(b"boundary", b""), callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise wrong from error
    for head, part in zip(heads, parts, strict=True):
        if b"filename=" in head.lower() or b"filename*=" in head.lower():
            return bytes(part)
    raise wrong


def check_picture(data: bytes, megapixels: float) -> Header:
    """What the header of a picture says; nothing is decoded.

    Raises:
        RefusedError: it is no picture, or would take too much memory.
    """
    try:
        header = read_header(data, "picture")
    except DataError as error:
        raise RefusedError(415, "not_a_picture", str(error)) from error
    counted = header.height * header.width / 1e6 * max(1.0, header.bits / _COUNTED_BITS)
    if counted > megapixels:
        raise RefusedError(413, "too_many_pixels", f"A picture should have at most {megapixels:g} megapixels. Found "
                      f"{header.width} x {header.height} pixels. Shrink it or cut it into parts.")  # fmt: skip
    return header
