"""Questions wait here, and go to the process that computes in small batches; the process is replaced where it ends."""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hsl.errors import UserError
from hsl.serving.served import Answer, Facts, OpenModel, Question, RefusedError
from hsl.serving.worker import Worker

BATCHES = 3
"""At the worker at once: one is decoded, one computed, one encoded."""
LONGEST_PAUSE_S = 30.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
        queue: questions that wait; of more the sender is told to come back.
        batch: questions that are computed together, at most.
        megapixels: of a picture, and of all in a batch but its first.
        upload_mb: megabytes of a picture as it is sent.
        timeout_s: seconds until a question is answered, from when all of it has come.
    """

    queue: int = 64
    batch: int = 8
    megapixels: float = 25.0
    upload_mb: float = 20.0
    timeout_s: float = 60.0


@dataclass(eq=False)
class _Job:
    question: Question
    answer: "asyncio.Future[Answer]"
    alone: bool = False
    """Whether it was in a worker that ended, and might be the reason: then nothing else goes with it."""


@dataclass(eq=False)
class Statistics:
    """Counts since the start, for `/metrics`."""

    batches: int = 0
    batched: int = 0
    lost_workers: int = 0
    reloads: int = 0


@dataclass(eq=False)
class Dispatcher:
    """The queue before one worker. All of it is used in the thread of one event loop.

    A batch is whatever waits when the worker can take one: nothing waits for company, so that batches grow with the
    load alone. Where a worker ends, a question that was in it alone is answered 503; of several each is asked again,
    alone, so that the one that ends workers harms no other.

    Attributes:
        open_model: opens the model, in a process of its own.
        limits: what is taken.
    """

    open_model: OpenModel
    limits: Limits
    statistics: Statistics = field(default_factory=Statistics)
    facts: Facts | None = None
    """Of the model that answers or, until another one does, answered last."""

    def __post_init__(self) -> None:
        self._queue: deque[_Job] = deque()
        self._numbers = itertools.count()
        self._worker: Worker | None = None
        self._batches: dict[Worker, dict[int, list[_Job]]] = {}
        self._overdue: dict[int, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._failures = 0
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Questions that no worker has yet."""
        return len(self._queue)

    @property
    def ready(self) -> bool:
        """Whether there is a model that answers."""
        return self._worker is not None and not self._stopping

    @property
    def pid(self) -> int | None:
        """Of the worker that answers."""
        return None if self._worker is None else self._worker.pid

    async def start(self) -> Facts:
        """Open the model.

        Raises:
            UserError: it cannot be opened.
        """
        await self._replace()
        if self.facts is None:
            raise UserError("The process of the model ended as soon as the model was open. Start it again.")
        return self.facts

    async def ask(self, question: Question) -> Answer:
        """The answer to a question.

        Raises:
            RefusedError: there are too many, it took too long, or the worker was lost.
        """
        if self._stopping:
            raise RefusedError(503, "stopping", "The server is about to end. Ask another, or later.", 5)
        if len(self._queue) >= self.limits.queue:
            raise RefusedError(429, "busy", f"At most {self.limits.queue} questions may wait. Ask again later.", 1)
        job = _Job(question, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._pump()
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await job.answer
        except TimeoutError:
            seconds = f"{self.limits.timeout_s:g}"
            raise RefusedError(
                504, "timeout", f"An answer should take at most {seconds} s. It would take longer.", 5
            ) from None

    async def reload(self) -> None:
        """Open the model anew; the worker that there is answers until the new one can, and what it has to the end."""
        async with self._reloading:
            try:
                await self._replace()
            except UserError as error:
                logger.error("The model cannot be opened anew, the one before answers on. %s", error)
                return
        self.statistics.reloads += 1
        logger.info("The model was opened anew.")

    async def stop(self) -> None:
        """Take no more questions, answer those that there are, end the worker."""
        self._stopping = True
        while any(not job.answer.done() for job in self._open_jobs()):
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        for worker in list(self._batches):
            worker.close()

    def _open_jobs(self) -> list[_Job]:
        under_way = [job for batches in self._batches.values() for jobs in batches.values() for job in jobs]
        return [*self._queue, *under_way]

    async def _replace(self) -> None:
        new = Worker(self.open_model, self._answered, self._ended)
        self._batches[new] = {}
        try:
            facts = await new.ready
        except BaseException:
            new.kill()
            raise
        if new.ended:
            return
        old, self._worker, self.facts, self._failures = self._worker, new, facts, 0
        if old is not None:
            self._retire(old)
        self._pump()

    def _retire(self, worker: Worker) -> None:
        if worker is not self._worker and not self._batches.get(worker):
            worker.close()

    def _pump(self) -> None:
        """Hand over what the worker can take."""
        worker = self._worker
        while worker is not None and (jobs := self._next(list(self._batches[worker].values()))):
            number = next(self._numbers)
            self._batches[worker][number] = jobs
            late = asyncio.get_running_loop().call_later(self.limits.timeout_s, self._kill, worker)
            self._overdue[number] = late
            self.statistics.batches += 1
            self.statistics.batched += len(jobs)
            worker.send(number, [job.question for job in jobs])

    def _next(self, under_way: list[list[_Job]]) -> list[_Job]:
        while self._queue and self._queue[0].answer.done():  # nobody waits for it any more
            self._queue.popleft()
        if not self._queue or len(under_way) >= BATCHES or any(jobs[0].alone for jobs in under_way):
            return []
        if self._queue[0].alone:
            return [] if under_way else [self._queue.popleft()]
        jobs, pixels = [self._queue.popleft()], 0
        while self._queue and len(jobs) < self.limits.batch and not self._queue[0].alone:
            pixels += self._queue[0].question.pixels
            if pixels + jobs[0].question.pixels > 1e6 * self.limits.megapixels:
                break
            job = self._queue.popleft()
            if not job.answer.done():
                jobs.append(job)
        return jobs

    def _kill(self, worker: Worker) -> None:
        logger.error(
            "The model has computed for %g s without an answer; its process is replaced.", self.limits.timeout_s
        )
        worker.kill()

    def _answered(self, worker: Worker, number: int, answers: list[Answer]) -> None:
        self._overdue.pop(number).cancel()
        for job, answer in zip(self._batches[worker].pop(number), answers, strict=True):
            if not job.answer.done():
                job.answer.set_result(answer)
        self._retire(worker)
        self._pump()

    def _ended(self, worker: Worker) -> None:
        batches = self._batches.pop(worker)
        for number in batches:
            self._overdue.pop(number).cancel()
        jobs = [job for batch in batches.values() for job in batch]
        open_jobs = [job for job in jobs if not job.answer.done()]
        if len(jobs) == 1 and open_jobs:
            lost = RefusedError(503, "worker_lost", "The process of the model ended while it had this picture.", 5)
            open_jobs[0].answer.set_exception(lost)
        elif open_jobs:
            for job in open_jobs:
                job.alone = True
            self._queue.extendleft(reversed(open_jobs))
        if worker is self._worker:
            self._worker = None
            if not self._stopping or self._queue:
                self.statistics.lost_workers += 1
                logger.error("The process of the model has ended; another is started.")
                self._later(self._start_again())

    async def _start_again(self) -> None:
        while self._worker is None:
            try:
                async with self._reloading:
                    await self._replace()
            except UserError as error:
                self._failures += 1
                logger.error("The model cannot be opened. %s", error)
            if self._worker is None:
                await asyncio.sleep(min(LONGEST_PAUSE_S, 0.25 * 2**self._failures))

    def reload_soon(self) -> None:
        """`reload`, from a handler of signals."""
        self._later(self.reload())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
