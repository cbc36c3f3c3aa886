"""Start the studio: its folder, its server, and a worker that is started again when it dies."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from minisora.errors import UserError
from minisora.pipelines.shipped_models import find_model, shipped
from minisora.screen import plain
from minisora.serve.loopback import run
from minisora.studio.folders import Folders
from minisora.studio.job_store import JobStore
from minisora.studio.own_models import own_models
from minisora.studio.report_pages import report_routes
from minisora.studio.studio_app import studio_app
from minisora.studio.train_pages import train_routes
from minisora.studio.upload_pages import UPLOADS
from minisora.studio.world_pages import world_routes

WORKER = (sys.executable, "-m", "minisora.studio.worker")
# Workers in a row that ended before they had told of all models; after so many there is no use in another.
_TRIES = 3
# Seconds that the worker of a killed studio may take to end.
_ENDS = 5.0
# Seconds between the end of a worker and the next one.
_PAUSE = 1.0


def run_studio(
    models: Sequence[str],
    home: Path,
    host: str | None,
    port: int,
    announce: Callable[[str], None],
    worker: Sequence[str] = WORKER,
    data: Sequence[Path] = (),
    runs: Path = Path("runs"),
) -> None:
    """Serve the studio until it is interrupted.

    Args:
        models: folders or names of shipped models.
        home: folder of the videos and the queue; made if need be.
        host, port, announce: as of `minisora.serve.loopback.run`.
        worker: the command of the worker, which gets `home` and NAME=FOLDER for each model.
        data: folders with clips to train on, or with folders of clips.
        runs: folder of the runs.

    Raises:
        UserError: there is no such model, the folder is in use or cannot be written, or the address is.
    """
    named, folders = name_models(models), Folders(data, runs)
    folders.check()
    store = JobStore(home)
    lock = FileLock(home / "studio.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another studio runs in {home}: end it, or choose another --home") from error
    store.forget_models(())
    # What ran when the last studio was killed is told to have ended before a worker has read its models. The worker of
    # that one ends with it, or nearly.
    with suppress(Timeout), FileLock(home / "worker.lock", timeout=_ENDS):
        store.requeue()
    store.forget_told()
    store.keep_uploads()
    folders.keep(home)
    more = [*train_routes(store, folders), *world_routes(folders, home), *report_routes(store, folders)]
    keeper = WorkerKeeper(
        store, [*worker, str(home), *(f"{name}={place}" for name, place in named.items())], named
    )
    try:
        num_models = len({*named, *own_models(home, named)})
        app = studio_app(store, keeper.state, keeper.lifespan, more, num_models)
        run(app, host, port, announce, uploads=UPLOADS)
    finally:
        lock.release()
        store.close()


def name_models(models: Sequence[str]) -> dict[str, str]:
    """Models by the name that people see: of a folder the last part that says something.

    Raises:
        UserError: one is no model.
    """
    named: dict[str, str] = {}
    for model in models:
        place = find_model(model)
        if not (place / "model_index.json").is_file():
            known = ", ".join(shipped())
            raise UserError(
                f"{model} is not a model folder: give one such as runs/demo/model, or a name: {known}"
            )
        if model in shipped() and not Path(model).exists():
            name = model
        else:
            parts = [part for part in place.absolute().parts if part not in ("model", "/")]
            name = parts[-1] if parts else "model"
        # Of letters, and between name and place stands a "=".
        name = plain(name).replace("=", "-")
        unique, number = name, 2
        while unique in named:
            unique, number = f"{name} {number}", number + 1
        named[unique] = str(model)
    return named


class WorkerKeeper:
    """Keeps one worker alive as long as the server runs.

    Args:
        store: jobs, and what the worker tells of its models.
        command: of the worker.
        names: of all its models.
    """

    def __init__(self, store: JobStore, command: Sequence[str], names: Collection[str]):
        self._store, self._command, self._names = store, list(command), frozenset(names)
        self._down = ""

    def state(self) -> str:
        """As of `studio_app`: ready when all models were read; those that were can be used before."""
        return self._down or ("ready" if self._is_told() else "starting")

    def _is_told(self) -> bool:
        return self._names <= set(self._store.told())

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Start the worker with the server, and end it with it."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    async def _keep(self) -> None:
        failures = 0
        while failures < _TRIES:
            process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.PIPE)
            try:
                await process.wait()
            finally:
                # The server ends: so does the worker, when this closes.
                if process.stdin is not None:
                    process.stdin.close()
            # What it told says how far it came, on a machine of any speed.
            failures = 0 if self._is_told() else failures + 1
            self._store.forget_told()
            self._store.note_death()
            await asyncio.sleep(_PAUSE)
        self._down = "the worker does not start: the terminal of the studio says why"
