"""The worker: one process that owns the models and makes one video after another, until its server ends.

A training is a job as well: it runs in a process of the worker's, and videos wait until it is done or stopped.

    python -m minisora.studio.worker HOME NAME=FOLDER ...

It ends at once when its standard input closes, which the system does for it however the server ended; the job that it
was at is then taken up by the next worker.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from minisora.errors import UserError
from minisora.memory import is_out_of_memory, out_of_memory
from minisora.screen import plain
from minisora.studio import training_job
from minisora.studio.job_store import JobStore
from minisora.studio.own_models import keep_model, own_models

_log = logging.getLogger(__name__)
# Seconds between looks into an empty queue.
_IDLE = 0.1
# Pictures of what forms: so long apart at least, and taking no more than this share of the time.
_PICTURE_EVERY, _PICTURE_SHARE = 0.25, 0.1


# Called after each step with the steps done; makes the PNG of what forms where it is wanted and there is one.
OnStep = Callable[[int, Callable[[], bytes | None]], None]
# Recipe (as JSON) and mp4 of what a video is made from; of a file that was sent None, and the file.
Parent = tuple[dict[str, Any] | None, Path]


class Cancelled(Exception):
    """The person who asked for a video does not want it any more."""


class Engine(Protocol):
    """What makes the videos."""

    @property
    def names(self) -> list[str]:
        """Of the models."""
        ...

    def facts(self, name: str) -> dict[str, Any]:
        """What the page has to know of a model."""
        ...

    def add(self, name: str, model: Path) -> None:
        """One more model, in a folder."""
        ...

    def make(
        self, request: dict[str, Any], parents: Sequence[Parent], video: Path, picture: Path, on_step: OnStep
    ) -> dict[str, Any]:
        """Make what was asked for; returns what `JobStore.finish` takes."""
        ...


def work(store: JobStore, engine: Engine, stop: threading.Event) -> None:
    """Make queued videos until `stop` is set."""
    store.requeue()
    for name, model in own_models(store.home, engine.names).items():
        engine.add(name, model)
    # What a worker before this one has told holds on: jobs can be asked for meanwhile.
    store.forget_models(engine.names)
    for name in engine.names:
        try:
            store.tell_model(name, engine.facts(name))
        except UserError as error:
            store.tell_model(name, {"error": str(error)})
    while not stop.is_set():
        if not work_one(store, engine):
            stop.wait(_IDLE)


def work_one(store: JobStore, engine: Engine) -> bool:
    """Do the next job, if one waits; whether one did."""
    job = store.take()
    if job is None:
        return False
    number = job["id"]
    sent: Path | None = None
    try:
        if (kind := job["request"].get("kind")) is not None:
            if kind == training_job.TRAIN:
                training_job.train(store, number, job["request"])
            # A world is played and makes no video.
            if not training_job.learns_world(job["request"]):
                offer_run(store, engine, job["request"]["run"])
            store.complete(number)
            return True
        pictures = _Steps(store, number)
        files = (store.clip_file(number, ".mp4"), store.clip_file(number, ".png"))
        request = dict(job["request"])
        numbers = request.pop("parents", [])
        parents = _parents(store, numbers)
        if "file" in request:
            sent = store.uploads_folder / request.pop("file")
            if not sent.is_file():
                raise UserError(f"{request['name']} is not there any more: send it again")
            parents = [(None, sent)]
        made = engine.make(request, parents, *files, pictures)
        store.finish(number, {**made, "parents": numbers})
    except (Cancelled, training_job.Stopped):
        store.end(number, None)
    except UserError as error:
        # A path in it may have a byte that is not UTF-8, which no database takes.
        store.end(number, plain(str(error)))
    except Exception as error:
        # One bad job must not end the others.
        if is_out_of_memory(error):
            store.end(number, out_of_memory(error, "ask for a smaller or shorter video, or free some"))
        else:
            _log.exception("job %d failed", number)
            store.end(number, f"it failed ({type(error).__name__}): the terminal of the studio says more")
    if sent is not None:
        sent.unlink(missing_ok=True)
    return True


def _parents(store: JobStore, numbers: Sequence[int]) -> list[Parent]:
    found: list[Parent] = []
    for number in numbers:
        clip, file = store.clip(number), store.clip_file(number, ".mp4")
        if clip is None or not file.is_file():
            raise UserError("the video that it was to be made from is not there any more")
        found.append((clip["recipe"], file))
    return found


def offer_run(store: JobStore, engine: Engine, run: str) -> None:
    """Make the model of a run one of those that videos are made by, now and at every later start.

    Raises:
        UserError: it has none, or it cannot be read.
    """
    name, model = keep_model(store.home, run, engine.names)
    engine.add(name, model)
    store.tell_model(name, engine.facts(name))


class _Steps:
    """What the worker does after each step: stop if that was asked for, tell the step, and now and then a picture."""

    def __init__(self, store: JobStore, job: int):
        self._store, self._job = store, job
        self._next = 0.0

    def __call__(self, step: int, picture: Callable[[], bytes | None]) -> None:
        if self._store.is_cancelled(self._job):
            raise Cancelled
        begin = time.monotonic()
        shown = picture() if begin >= self._next else None
        self._store.tell_step(self._job, step, shown)
        if shown is not None:
            now = time.monotonic()
            self._next = now + max(_PICTURE_EVERY, (now - begin) / _PICTURE_SHARE)


def end_with_server() -> None:
    """End this process as soon as its standard input closes."""

    def wait() -> None:
        # Not by way of sys.stdin, whose lock would break the end of this process.
        while os.read(0, 1):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run a worker for a folder, when the one before it has ended."""
    logging.basicConfig(format="%(name)s: %(message)s")
    # Of the terminal that both share: it is for the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_server()
    # Here: torch takes seconds to read, and other engines need none.
    from minisora.studio.engine import PipelineEngine

    home = Path(arguments[0])
    models = dict(argument.partition("=")[::2] for argument in arguments[1:])
    with FileLock(home / "worker.lock"):
        work(JobStore(home), PipelineEngine(models), threading.Event())


if __name__ == "__main__":
    main(sys.argv[1:])
