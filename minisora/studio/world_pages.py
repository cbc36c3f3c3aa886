"""The view Worlds: which worlds there are, and the page of `minisora world play`, passed through.

A world is played in a process of its own, `minisora world play`, which listens on 127.0.0.1 with a token that only this
server knows. Under /world/ lie the files of its page; its websocket and the videos that it saves are passed on behind
the studio's own guard. So one address and one token open everything, through a tunnel too. One world is played at a
time, and it ends with the studio.
"""

import asyncio
import http.client
import re
import socket
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from minisora.errors import UserError
from minisora.files import read_json
from minisora.run_metrics import number
from minisora.serve.loopback import LOOPBACK
from minisora.serve.web_pages import JSONAnswer, json_object, page_routes
from minisora.studio.folders import Folders, run_id
from minisora.studio.tied_command import why_it_ended
from minisora.worlds.world_folder import ABOUT, NAMES, WORLDS, shipped_worlds

# What precedes the words of the command.
COMMAND = (sys.executable, "-m", "minisora.studio.tied_command", "-")
# The world that is always there, by exact rules.
ARENA = "arena"
# Seconds until a world is there, which reads its models; and until one that does not end is ended.
_PATIENCE, _ENDS = 180.0, 5.0
_PLAYER = Path(__file__).parents[1] / "player" / "page"
_STYLE = Path(__file__).parents[1] / "demo" / "style.css"
_ADDRESS = re.compile(rb"http://\S+")
_NOBODY, _GONE = 4004, 1011
# Bytes of a video that was saved.
_MOST_BYTES = 1 << 28


def world_routes(folders: Folders, home: Path) -> list[BaseRoute]:
    """The routes of the view and of the page that plays.

    Args:
        folders: whose runs may have worlds.
        home: of the studio; what is saved of a game goes to HOME/played.
    """
    pages = _WorldPages(folders, home)
    page = [
        *page_routes(_PLAYER, _STYLE),
        Route("/saved/{number:int}.mp4", pages.saved),
        WebSocketRoute("/play", pages.play),
    ]
    return [
        Route("/api/worlds", pages.worlds),
        Route("/api/worlds", pages.begin, methods=["POST"]),
        Route("/api/worlds", pages.end, methods=["DELETE"]),
        Mount("/world", routes=page),
    ]


class WorldProcess:
    """`minisora world play` in a process.

    Args:
        words: what follows "world play".
    """

    def __init__(self, words: list[str]):
        self._words = ["world", "play", *words, "--port", "0"]
        self._process: Process | None = None
        self.port, self._token = 0, ""

    async def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            UserError: it ended instead; the message is its own.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            *COMMAND, *self._words, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        assert process.stdout is not None
        try:
            while line := await asyncio.wait_for(process.stdout.readline(), _PATIENCE):
                if match := _ADDRESS.search(line):
                    address = urlsplit(match[0].decode())
                    self.port, self._token = address.port or 0, parse_qs(address.query)["token"][0]
                    self._reading = asyncio.create_task(_drain(process))
                    return
        except TimeoutError as error:
            await self.end()
            raise UserError(f"the world was not there after {_PATIENCE:.0f} s") from error
        assert process.stderr is not None
        said = (await process.stderr.read()).decode(errors="replace")
        await process.wait()
        raise UserError(why_it_ended(said) or "it ended without a word")

    @property
    def is_alive(self) -> bool:
        """Whether it can be played."""
        return self._process is not None and self._process.returncode is None and self.port > 0

    async def end(self) -> None:
        """End it."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _ENDS)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def saved(self, number: int) -> bytes | None:
        """A video that was saved; None: there is none."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        try:
            headers = {"authorization": f"Bearer {self._token}"}
            connection.request("GET", f"/saved/{number}.mp4", headers=headers)
            answer = connection.getresponse()
            return answer.read(_MOST_BYTES) if answer.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def connect(self) -> Any:
        """Its websocket, as of `websockets`."""
        import websockets.asyncio.client

        # A socket of our own: no proxy of the environment is asked for it.
        own = socket.create_connection((LOOPBACK, self.port), timeout=10)
        own.setblocking(False)
        return websockets.asyncio.client.connect(
            f"ws://{LOOPBACK}:{self.port}/play",
            sock=own,
            origin=f"http://{LOOPBACK}:{self.port}",  # type: ignore[arg-type]
            additional_headers={"Authorization": f"Bearer {self._token}"},
            max_size=None,
            compression=None,
        )


async def _drain(process: Process) -> None:
    """Read what a process says, so that it never waits for a reader."""
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]

    async def read(stream: asyncio.StreamReader) -> None:
        while await stream.read(1 << 16):
            pass

    await asyncio.gather(*map(read, streams))


def _row(id_: str, name: str, world: Path, shipped: bool) -> dict[str, Any]:
    """A world as the page lists it."""
    try:
        about = read_json(world / ABOUT)
        size = [int(about["height"]), int(about["width"])]
        fps, steps = number(about["fps"]), number(about["steps"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        # Damaged: playing it says so in its own words.
        size, fps, steps = [], None, None
    named = (world / NAMES).is_file()
    return {
        "id": id_,
        "name": name,
        "size": size,
        "fps": fps,
        "steps": steps,
        "named": named,
        "shipped": shipped,
    }


class _WorldPages:
    def __init__(self, folders: Folders, home: Path):
        self.folders, self.home = folders, home
        self._world: WorldProcess | None = None
        # Id, name and whether the truth is beside, of what is played.
        self._played: dict[str, Any] = {}
        self._starting = asyncio.Lock()

    async def worlds(self, request: Request) -> Response:
        """The worlds that can be played, and the one that is."""
        found = await asyncio.to_thread(self._list)
        playing = self._world is not None and self._world.is_alive
        return JSONAnswer({"worlds": found, "playing": self._played if playing else None})

    def _list(self) -> list[dict[str, Any]]:
        runs = {
            name: world for name in self.folders.run_names() if (world := self._world_of(name)) is not None
        }
        newest = sorted(runs, key=lambda name: (runs[name] / ABOUT).stat().st_mtime, reverse=True)
        own = [_row(run_id(name), name, runs[name], shipped=False) for name in newest]
        return own + [_row(name, name, WORLDS / name, shipped=True) for name in shipped_worlds()]

    def _world_of(self, name: str) -> Path | None:
        """The folder of a world in a run; None: it has none, or a link that leads out of it."""
        run = self.folders.run(name)
        world = run / "world"
        inside = world.resolve().is_relative_to(run.resolve())
        return world if inside and (world / ABOUT).is_file() else None

    async def begin(self, request: Request) -> Response:
        """Start a world; the one that was played ends."""
        asked = await json_object(request, {"world": (str,), "beside": (bool,)})
        id_, beside = asked.get("world", ""), asked.get("beside", False)
        words, name = [ARENA], ARENA
        if id_ != ARENA:
            runs = {run_id(each): each for each in await asyncio.to_thread(self.folders.run_names)}
            worlds = {each: WORLDS / each for each in shipped_worlds()}
            name = runs.get(id_, id_)
            world = self._world_of(name) if id_ in runs else worlds.get(id_)
            if world is None:
                raise UserError("there is no such world here: load the page again")
            words = [str(world), *(["--beside"] if beside else [])]
        async with self._starting:
            if self._world is not None:
                await self._world.end()
            self._world = WorldProcess([*words, "--out", str(self.home / "played")])
            self._played = {"id": id_, "name": name, "beside": beside}
            await self._world.start()
        return JSONAnswer(self._played)

    async def end(self, request: Request) -> Response:
        """End what is played."""
        async with self._starting:
            if self._world is not None:
                await self._world.end()
            self._world = None
        return JSONAnswer({})

    async def saved(self, request: Request) -> Response:
        """A video that was saved of the game."""
        place, world = request.path_params["number"], self._world
        if place > 10**6 or world is None or not world.is_alive:
            raise HTTPException(404)
        video = await asyncio.to_thread(world.saved, place)
        if video is None:
            raise HTTPException(404)
        return Response(video, media_type="video/mp4")

    async def play(self, page: WebSocket) -> None:
        """Pass messages between the page and the world, until one of both leaves."""
        await page.accept()
        world = self._world
        if world is None or not world.is_alive:
            await page.close(_NOBODY, "no world is played: begin one in the studio")
            return
        from websockets.exceptions import ConnectionClosed

        try:
            async with world.connect() as far:
                both = {asyncio.create_task(_to_world(page, far)), asyncio.create_task(_to_page(far, page))}
                _, left = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in left:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
            code, reason = far.close_code or _GONE, far.close_reason or ""
        except (OSError, ConnectionClosed):
            code, reason = _GONE, "the world has ended"
        # Codes below 1000 and some above are said by nobody.
        with suppress(RuntimeError, WebSocketDisconnect):
            await page.close(code if code >= 3000 or code in (1000, 1003, _GONE) else _GONE, reason)


async def _to_world(page: WebSocket, far: Any) -> None:
    while (message := await page.receive())["type"] != "websocket.disconnect":
        content = message.get("bytes")
        await far.send(message["text"] if content is None else content)


async def _to_page(far: Any, page: WebSocket) -> None:
    async for message in far:
        if isinstance(message, str):
            await page.send_text(message)
        else:
            await page.send_bytes(message)
