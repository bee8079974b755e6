"""The process that computes: what runs in it, and the handle that the process that listens has on it."""

import asyncio
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError, UserError, says_no_memory, user_sentence
from hsl.exporting.prediction import Prediction
from hsl.serving.answers import answer_of
from hsl.serving.served import Answer, Facts, OpenModel, Question, RefusedError, Served
from hsl.terminal import say

FAILURES = (ArithmeticError, AssertionError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError,
            cv2.error)  # fmt: skip
"""What a model may raise of a picture; the process goes on."""
NAME = "picture"
"""What errors call a picture: what its sender calls it is not repeated."""


def compute(connection: Connection, open_model: OpenModel) -> None:
    """What the process does: it opens the model, says so, and answers lists of questions until it is told to end.

    The next questions are decoded, and earlier answers encoded, while the model computes.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    threading.excepthook = _die
    try:
        model = open_model()
        facts = Facts.of(model)
    except FAILURES as error:
        if (sentence := user_sentence(error)) is None:
            traceback.print_exc()
        connection.send(sentence or f"The model cannot be opened: {type(error).__name__}.")
        return
    connection.send(facts)
    decoded: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
    predicted: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, model, decoded), daemon=True).start()
    threading.Thread(target=_send, args=(connection, predicted), daemon=True).start()
    while True:
        batch = decoded.get()
        batch.predict(model)
        predicted.put(batch)


@dataclass(eq=False)
class _Batch:
    number: int
    questions: Sequence[Question]
    answers: dict[int, Answer] = field(default_factory=dict)
    images: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    said: dict[int, tuple[Prediction, Any]] = field(default_factory=dict)

    def decode(self, model: Served) -> None:
        for place, question in enumerate(self.questions):
            try:
                self.images[place] = model.decode(question.data, NAME)
            except DataError as error:
                self.answers[place] = RefusedError(422, "broken_picture", str(error)).answer()
            except FAILURES as error:
                self.answers[place] = failed(error)

    def predict(self, model: Served) -> None:
        """All at once; where that fails, one by one, so that one picture harms no other."""
        places = list(self.images)
        if len(places) > 1:
            try:
                self._take(model, places)
                return
            except FAILURES:
                self.said.clear()
        for place in places:
            try:
                self._take(model, [place])
            except FAILURES as error:
                self.answers[place] = failed(error)

    def _take(self, model: Served, places: Sequence[int]) -> None:
        images = [self.images[place] for place in places]
        for place, image, said in zip(places, images, model.predict_many(images), strict=True):
            self.said[place] = said, model.judge(image, said)

    def encode(self) -> list[Answer]:
        for place, (said, verdict) in self.said.items():
            try:
                self.answers[place] = answer_of(self.questions[place], self.images[place], said, verdict)
            except RefusedError as problem:
                self.answers[place] = problem.answer()
            except FAILURES as error:
                self.answers[place] = failed(error)
        return [self.answers[place] for place in range(len(self.questions))]


def failed(error: BaseException) -> Answer:
    """What is answered where the model fails at a picture; why stands on stderr, unless it is the picture's fault."""
    if says_no_memory(error):
        return RefusedError(
            503, "no_memory", "The picture takes more memory than there is. Send a smaller one.", 5
        ).answer()
    if isinstance(error, UserError):
        return RefusedError(422, "not_predictable", str(error)).answer()
    say("".join(traceback.format_exception(error)), error=True)
    return RefusedError(
        500, "model_failed", "The model failed at this picture. The log of the server says why."
    ).answer()


def _receive(connection: Connection, model: Served, decoded: "queue.SimpleQueue[_Batch]") -> None:
    try:
        while (message := connection.recv()) is not None:
            batch = _Batch(*message)
            batch.decode(model)
            decoded.put(batch)
    except (EOFError, ConnectionError):  # the parent is gone
        pass
    os._exit(0)


def _send(connection: Connection, predicted: "queue.SimpleQueue[_Batch]") -> None:
    try:
        while True:
            batch = predicted.get()
            connection.send((batch.number, batch.encode()))
    except ConnectionError:
        os._exit(0)


def _die(arguments: threading.ExceptHookArgs) -> None:
    """A thread that fails would leave its questions without an answer for ever; a process that ends is replaced."""
    traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    os._exit(1)


class Worker:
    """The handle on one such process. All of it is used in the thread of one event loop.

    Args:
        open_model: opens the model there.
        on_answers: called with the number of a batch and its answers.
        on_end: called with this worker once it has ended, whatever the reason.

    Attributes:
        ready: the facts of its model; a ``UserError`` where it cannot be opened.
        ended: whether it is gone.
    """

    def __init__(
        self,
        open_model: OpenModel,
        on_answers: Callable[["Worker", int, list[Answer]], None],
        on_end: Callable[["Worker"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_answers, self._on_end = on_answers, on_end
        self.ready: asyncio.Future[Facts] = self._loop.create_future()
        self.ended = False
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=compute, args=(theirs, open_model), daemon=True)
        self._process.start()
        theirs.close()
        self._writer = ThreadPoolExecutor(1)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def send(self, number: int, questions: Sequence[Question]) -> None:
        """Hand over a batch."""
        self._writer.submit(self._write, (number, questions))

    def close(self) -> None:
        """Ask it to end. It does not finish what it was handed before."""
        self._writer.submit(self._write, None)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def _write(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:  # it has ended, which the other thread tells
            return

    def _listen(self) -> None:
        for message in self._messages():
            if isinstance(message, tuple):
                self._call(self._on_answers, self, *message)
            else:
                self._call(self._settle, message)
        self._process.kill()
        self._process.join()
        self._call(self._finish)

    def _messages(self) -> Iterator[Any]:
        try:
            while True:
                yield self._connection.recv()
        except (EOFError, OSError):
            return

    def _settle(self, message: Facts | str) -> None:
        if not self.ready.done():
            if isinstance(message, Facts):
                self.ready.set_result(message)
            else:
                self.ready.set_exception(UserError(message))

    def _finish(self) -> None:
        self.ended = True
        self._writer.shutdown(wait=False)
        self._settle("The process of the model ended while it was opened. It may have been killed for want of memory.")
        self._on_end(self)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
