"""The compute report in the studio: what a published estimate says, audited and rerun, also with what a run measured.

It is made by `minisora report` in a process of its own, one at a time, and lies in HOME/reports/ID: of a run by the id
that pages know it by, else "own". Its page moves sliders by scripts that stand in it. So it is shown as the page of a
run is, in a sandbox: a document of no origin, without network, cookies or forms.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from minisora.errors import UserError
from minisora.serve.web_pages import JSONAnswer, json_object
from minisora.studio.folders import Folders, run_id
from minisora.studio.job_store import JobStore
from minisora.studio.tied_command import why_it_ended
from minisora.studio.upload_pages import check_disk

# What precedes the words of the command.
COMMAND = (sys.executable, "-m", "minisora.studio.tied_command", "-")
# The report that no run has a part in.
OWN = "own"
_SANDBOX = "; ".join(
    (
        "sandbox allow-scripts",
        "default-src 'none'",
        # Written by this studio, from numbers and escaped text.
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def report_routes(store: JobStore, folders: Folders) -> list[BaseRoute]:
    """The routes of the reports.

    Args:
        store: whose home they are kept in.
        folders: whose runs may have a part in them.
    """
    pages = _ReportPages(store, folders)
    return [
        Route("/api/reports/{id}", pages.state),
        Route("/api/reports/{id}", pages.make, methods=["POST"]),
        Route("/reports/{id}", pages.page),
    ]


class _ReportPages:
    def __init__(self, store: JobStore, folders: Folders):
        self.store, self.folders = store, folders
        # The one that is made now, and why the last one of an id was not.
        self._making: str | None = None
        self._failed: dict[str, str] = {}
        self._watching: asyncio.Task[None] | None = None

    async def state(self, request: Request) -> Response:
        """{"state": "none", "making", "failed" or "done"} and when it was made, or why it was not."""
        id_, _ = await self._run(request)
        return JSONAnswer(self._state(id_))

    def _state(self, id_: str) -> dict[str, Any]:
        if self._making == id_:
            return {"state": "making"}
        if id_ in self._failed:
            return {"state": "failed", "error": self._failed[id_]}
        try:
            return {"state": "done", "made": self._file(id_).stat().st_mtime}
        except OSError:
            return {"state": "none"}

    async def make(self, request: Request) -> Response:
        """Begin to make one, anew where there is one."""
        await json_object(request, {})
        id_, run = await self._run(request)
        if self._making is not None:
            raise UserError("a report is being made: let it be done first")
        check_disk(self.store)
        self._making = id_
        self._failed.pop(id_, None)
        words = ["report", "--out", str(self._file(id_).parent), *(["--run", str(run)] if run else [])]
        self._watching = asyncio.create_task(self._watch(id_, words))
        return JSONAnswer(self._state(id_))

    async def _watch(self, id_: str, words: list[str]) -> None:
        process: Process | None = None
        try:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, *words, stdin=PIPE, stdout=DEVNULL, stderr=PIPE
            )
            assert process.stderr is not None
            said = (await process.stderr.read()).decode(errors="replace")
            if (code := await process.wait()) != 0:
                self._failed[id_] = why_it_ended(said) or f"it ended with code {code} and no word"
        finally:
            self._making = None
            if process is not None and process.stdin is not None:
                process.stdin.close()

    async def page(self, request: Request) -> Response:
        """A report, in its sandbox."""
        id_, _ = await self._run(request)
        try:
            content = await asyncio.to_thread(self._file(id_).read_bytes)
        except OSError as error:
            raise HTTPException(404) from error
        headers = {"content-security-policy": _SANDBOX, "cache-control": "no-cache"}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    async def _run(self, request: Request) -> tuple[str, Path | None]:
        """The id in the address, and the folder of the run that it is of."""
        id_ = request.path_params["id"]
        if id_ == OWN:
            return OWN, None
        for name in await asyncio.to_thread(self.folders.run_names):
            if run_id(name) == id_:
                return id_, self.folders.run(name)
        raise HTTPException(404)

    def _file(self, id_: str) -> Path:
        return self.store.home / "reports" / id_ / "report.html"
