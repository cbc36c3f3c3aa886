"""The doctor's visits to folders of clips: one at a time, each in a process of its own, ended with the server."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Any

from minisora.studio.folders import DataFolder

COMMAND = (sys.executable, "-m", "minisora.studio.doctor_check")
# Of a line that a visit writes.
_MOST_BYTES = 1 << 22


class FolderChecks:
    """What is known of folders, by id and by what is to be learned; a visit that is begun ends the one before."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._process: Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._visited = ("", "")
        # Of two visits that are begun at once one is the last.
        self._changing = asyncio.Lock()

    def state(self, id_: str, learns: str) -> dict[str, Any]:
        """{"state": "none", "running", "done" or "failed"} and what goes with it."""
        return self._known.get((id_, learns), {"state": "none"})

    async def begin(self, folder: DataFolder, learns: str) -> None:
        """Look at a folder, again where it was looked at before."""
        async with self._changing:
            await self._end()
            visited = self._visited = (folder.id, learns)
            self._known[visited] = {"state": "running", "done": 0, "total": folder.files}
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND, str(folder.path), learns, stdin=PIPE, stdout=PIPE, limit=_MOST_BYTES
            )
            self._watching = asyncio.create_task(self._watch(visited, self._process))

    async def end(self) -> None:
        """End the visit that is going on, if one is."""
        async with self._changing:
            await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if self._watching is not None:
            # Before its process ends, which would be told as a failure.
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        if self.state(*self._visited)["state"] == "running":
            del self._known[self._visited]
        if process is not None:
            await _ended(process, at_once=True)

    async def _watch(self, visited: tuple[str, str], process: Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                told = json.loads(line)
                if "found" in told:
                    self._known[visited] = {"state": "done", **told["found"]}
                elif "error" in told:
                    self._known[visited] = {"state": "failed", "error": told["error"]}
                else:
                    self._known[visited] |= told
        except ValueError:
            # What a library printed is no answer.
            pass
        if self._known[visited]["state"] == "running":
            self._known[visited] = {
                "state": "failed",
                "error": "the check ended without a word: see the terminal",
            }
        await _ended(process)


async def _ended(process: Process, at_once: bool = False) -> None:
    """Wait until a process has ended, killed if need be, and let go of its input."""
    if at_once and process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
