"""What the view Train asks for and changes: folders of clips, the doctor's visits, runs, their curves and their pages.

A page gives ids of folders and runs that it was told, never a path, and no name of its own.

The page of a run is a file that others may have written. It is served into a sandbox: a document of no origin, whose
only script is the one that plays videos, without network, cookies or forms.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.limits import check_number
from minisora.serve.web_pages import JSONAnswer, json_object
from minisora.studio.folder_checks import FolderChecks
from minisora.studio.folders import MOST_FILES, Folders, run_id
from minisora.studio.job_store import JobStore
from minisora.studio.run_facts import SHOWN, can_go_on, list_runs, run_facts, shown_file
from minisora.studio.training_job import TRAIN, USE, VIDEOS, WORLD, training_file
from minisora.studio.upload_pages import check_disk

# Of a training, as a person gives them: a week is more than anybody waits for.
LEAST_MINUTES, MOST_MINUTES = 1, 7 * 24 * 60
# What is learned from where no folder is chosen: clips that are drawn as they are needed, or recorded first.
WITHOUT_FILES = {VIDEOS: "shapes", WORLD: "arena"}
_ID = re.compile("[0-9a-f]{12}")
# Bytes of a page, which holds its videos, and of a clip.
_MOST_PAGE, _MOST_CLIP = 200 * 10**6, 20 * 10**6
_PLAYS = Path(__file__).parents[1] / "demo" / "videos.js"
_RENEWS = re.compile(rb'<meta http-equiv="refresh"[^>]*>\n?')
_Found = TypeVar("_Found")


def train_routes(store: JobStore, folders: Folders) -> list[BaseRoute]:
    """The routes of the view.

    Args:
        store: of the jobs.
        folders: that a person named.
    """
    pages = _TrainPages(store, folders)
    data, run = "/api/data/{id}", "/api/runs/{id}"
    return [
        Route("/api/train", pages.begin_with),
        Route("/api/train", pages.add, methods=["POST"]),
        Route(f"{data}/check", pages.checked),
        Route(f"{data}/check", pages.check, methods=["POST"]),
        Route(f"{data}/check", pages.end_check, methods=["DELETE"]),
        Route(run, pages.run),
        Route(f"{run}/resume", pages.resume, methods=["POST"]),
        Route(f"{run}/use", pages.use, methods=["POST"]),
        Route(f"{run}/report", pages.report),
        Route("/runs/{id}/page", pages.page),
        Route("/runs/{id}/{kind}/{number:int}.mp4", pages.shown),
    ]


def minutes_of(asked: dict[str, Any]) -> int | float:
    """The minutes that were asked for; raises UserError where these are too few or too many."""
    minutes: int | float = asked.get("minutes", 0)
    check_number("minutes", minutes, float(LEAST_MINUTES), float(MOST_MINUTES))
    return minutes


def sandbox() -> str:
    """The Content-Security-Policy of a run's page."""
    digest = base64.b64encode(hashlib.sha256(_PLAYS.read_bytes()).digest()).decode()
    return "; ".join(
        (
            "sandbox allow-scripts",
            "default-src 'none'",
            f"script-src 'sha256-{digest}'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "media-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


class _TrainPages:
    def __init__(self, store: JobStore, folders: Folders):
        self.store, self.folders, self.checks = store, folders, FolderChecks()
        self._sandbox = sandbox()
        # A run that is asked for twice at once goes on once.
        self._resuming = asyncio.Lock()

    async def begin_with(self, request: Request) -> Response:
        """Folders of clips and runs."""
        jobs = self.store.trainings()
        data = await _apart(self.folders.data_folders)
        runs = await _apart(lambda: list_runs(self.folders, self.store.home, jobs))
        return JSONAnswer(
            {
                "data": [{"id": each.id, "name": each.name, "files": each.files} for each in data],
                "most_files": MOST_FILES,
                "runs": runs,
                "minutes": [LEAST_MINUTES, MOST_MINUTES],
            }
        )

    async def check(self, request: Request) -> Response:
        """Let the doctor look at a folder, for what is to be learned from it."""
        asked = await json_object(request, {"learns": (str,)})
        id_, learns = _id(request), _learns(asked.get("learns"))
        folder = await _apart(lambda: self.folders.data_folder(id_))
        await self.checks.begin(folder, learns)
        return JSONAnswer(self.checks.state(id_, learns))

    async def checked(self, request: Request) -> Response:
        """What the doctor has found, or how far it is."""
        learns = _learns(request.query_params.get("learns"))
        return JSONAnswer(self.checks.state(_id(request), learns))

    async def end_check(self, request: Request) -> Response:
        """Send the doctor home."""
        id_ = _id(request)
        if any(self.checks.state(id_, learns)["state"] == "running" for learns in WITHOUT_FILES):
            await self.checks.end()
        return JSONAnswer({})

    async def add(self, request: Request) -> Response:
        """Queue the training of a new run."""
        asked = await json_object(
            request, {"learns": (str,), "data": (str,), "minutes": (int, float), "clip": (str,)}
        )
        minutes, learns = minutes_of(asked), _learns(asked.get("learns"))
        id_, clip = asked.get("data", ""), asked.get("clip", "clips")
        sets, report, base = {}, None, WITHOUT_FILES[learns]
        has_files = id_ != base
        if has_files:
            folder = await _apart(lambda: self.folders.data_folder(id_))
            base, known = folder.name, self.checks.state(id_, learns)
            if known["state"] == "done":
                report = known
                if clip == "suggested" and known["suggested"] is not None:
                    sets = known["sets"]
                said = known["suggested" if sets else "clips"]
                if not said["usable"]:
                    raise UserError("nothing in the folder is usable as it is: the doctor's report says why")
            elif clip == "suggested":
                raise UserError("let the doctor look at the folder first: it suggests the clip")
        check_disk(self.store)
        name = self.folders.new_run(base, list(self.store.trainings()))
        wanted = {
            "kind": TRAIN, "learns": learns, "run": name, "data": id_ if has_files else None, "sets": sets,
            "minutes": minutes,
        }  # fmt: skip
        if report is not None:
            file = training_file(self.store.home, name, ".json")
            file.parent.mkdir(exist_ok=True)
            write_json(file, report | {"data": base, "clip": "suggested" if sets else "clips"})
        (job,) = self.store.add_jobs([wanted], round(60 * minutes))
        return JSONAnswer({"job": job, "run": run_id(name)})

    async def run(self, request: Request) -> Response:
        """One run."""
        name, job = self._run(request)
        return JSONAnswer(await _apart(lambda: run_facts(self.folders, self.store.home, name, job)))

    async def resume(self, request: Request) -> Response:
        """Queue what is left of a run that has stopped; for other minutes where no plan was made yet."""
        asked = await json_object(request, {"minutes": (int, float)})
        async with self._resuming:
            return await self._resume(request, asked)

    async def _resume(self, request: Request, asked: dict[str, Any]) -> Response:
        name, job = self._run(request)
        jobs, place = self.store.trainings(), self.folders.run(name)
        rows = await _apart(lambda: list_runs(self.folders, self.store.home, jobs))
        row = next((each for each in rows if each["name"] == name), None)
        planned = can_go_on(place)
        if row is None or not row["goes_on"] or (job is None and planned is None):
            raise UserError("this run cannot go on: it is done, or waits already, or was trained otherwise")
        if row["state"] == "elsewhere":
            raise UserError(
                "another command wrote to this run within the last minute: let it end, then go on"
            )
        wanted = {} if job is None else job["request"]
        if job is None and planned is not None:
            learns, minutes = planned
            wanted = {
                "kind": TRAIN,
                "learns": learns,
                "run": name,
                "data": None,
                "sets": {},
                "minutes": minutes,
            }
        if "minutes" in asked:
            if (place / "plan.json").is_file():
                raise UserError("this run has its plan: it goes on by that")
            wanted |= {"minutes": minutes_of(asked)}
        check_disk(self.store)
        (number,) = self.store.add_jobs([wanted], round(60 * wanted["minutes"]))
        return JSONAnswer({"job": number, "run": run_id(name)})

    async def use(self, request: Request) -> Response:
        """Queue that the model of a run is read, to make videos by it."""
        await json_object(request, {})
        name, _ = self._run(request)
        if not (self.folders.run(name) / "model" / "model_index.json").is_file():
            raise UserError("this run has no model yet: train it to its end")
        (number,) = self.store.add_jobs([{"kind": USE, "run": name}], 1)
        return JSONAnswer({"job": number})

    async def report(self, request: Request) -> Response:
        """What the doctor said of the clips of a run."""
        name, _ = self._run(request)
        try:
            return JSONAnswer(read_json(training_file(self.store.home, name, ".json")))
        except (OSError, ValueError) as error:
            raise HTTPException(404) from error

    async def page(self, request: Request) -> Response:
        """The page of a run, in its sandbox."""
        name, _ = self._run(request)
        file = self._file(name, "index.html")
        if file.stat().st_size > _MOST_PAGE:
            raise UserError("the page of this run is too large to be shown here: open its file")
        # Without the line by which it renews itself: a document of no origin is not let in again.
        content = _RENEWS.sub(b"", await _apart(file.read_bytes), count=1)
        headers = {"content-security-policy": self._sandbox}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    async def shown(self, request: Request) -> Response:
        """A clip of what a run does."""
        name, _ = self._run(request)
        kind, number = request.path_params["kind"], request.path_params["number"]
        if kind not in SHOWN or number > 99:
            raise HTTPException(404)
        file = self._file(name, str(shown_file(Path(), kind, number)))
        if file.stat().st_size > _MOST_CLIP:
            raise HTTPException(404)
        # At once and not in parts: while it trains the file is written anew, and parts of two would be no video.
        content = await _apart(file.read_bytes)
        return Response(content, media_type="video/mp4", headers={"accept-ranges": "none"})

    def _run(self, request: Request) -> tuple[str, dict[str, Any] | None]:
        """Name of the run in the address, of those that are there or were asked for, and its last job."""
        id_, jobs = _id(request), self.store.trainings()
        for name in (*jobs, *self.folders.run_names()):
            if run_id(name) == id_:
                return name, jobs.get(name)
        raise HTTPException(404)

    def _file(self, name: str, inner: str) -> Path:
        """A file of a run; a link that leads out of it is none."""
        run = self.folders.run(name)
        file = run / inner
        if not file.is_file() or not file.resolve().is_relative_to(run.resolve()):
            raise HTTPException(404)
        return file


async def _apart(look: Callable[[], _Found]) -> _Found:
    """What a look at the disk gives, while others are answered; not for the store, which is of one thread."""
    return await asyncio.to_thread(look)


def _learns(given: str | None) -> str:
    """What is to be learned; raises UserError where it is nothing that can be."""
    learns = VIDEOS if given is None else given
    if learns not in WITHOUT_FILES:
        raise UserError(f"learns must be {' or '.join(WITHOUT_FILES)}")
    return learns


def _id(request: Request) -> str:
    id_ = request.path_params["id"]
    if not _ID.fullmatch(id_):
        raise HTTPException(404)
    return str(id_)
