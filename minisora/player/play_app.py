"""The page on which a world is played: its files, and one websocket that brings keys and takes pictures.

What the page sends, as JSON: {"do": "press", "button": "left", "number": 7} and the others of `_Person`; as bytes: a
picture to begin with, `H W 3`, which its browser has read and resized. What it gets: facts and messages as JSON, and
every picture as bytes: the length of a header (4 bytes, little-endian), the header (JSON), then `H W 3` bytes of the
world and, where there is one, as many of the true world.

One page plays at a time, the one that was opened last. A page gets a picture only when it has drawn the one before the
last: what it could not draw in time is never sent, and the latest picture is.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from minisora.errors import UserError
from minisora.run_metrics import number
from minisora.screen import plain
from minisora.serve.web_pages import ERRORS, page_routes
from minisora.worlds.game import Beginning, drift
from minisora.worlds.play import Loop, Shown, keys
from minisora.worlds.session import saved_line
from minisora.worlds.world import TrueWorld, World

_log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
# The look of all pages.
_STYLE = _HERE.parent / "demo" / "style.css"
# Pictures on their way to a page that were not drawn yet.
_IN_FLIGHT = 2
# The most that a message may hold, which the server takes.
_MOST_BYTES = 1 << 16
_TAKEN_OVER, _BROKEN = 4000, 4001
_MOST_LETTERS = 400


def play_app(
    loop: Loop, name: str, save: Callable[[], Path], draw: Callable[[str, World, int], Beginning] | None
) -> Starlette:
    """The application.

    Args:
        loop: the game; entered.
        name: of the world, for people.
        save: writes what was played, and gives the video.
        draw: makes a first frame of (prompt, world, seed); None: the world cannot begin with a picture.
    """
    seat = _Seat(loop, name, save, draw)
    routes = [
        *page_routes(_HERE / "page", _STYLE),
        Route("/saved/{number:int}.mp4", seat.video),
        WebSocketRoute("/play", seat.sit),
    ]
    return Starlette(routes=routes, exception_handlers=ERRORS)


def packed(shown: Shown, loop: Loop) -> bytes:
    """A picture with its header, as the page takes it."""
    header: dict[str, Any] = {
        "number": shown.number,
        "step": shown.step,
        "button": shown.button,
        "press": shown.press,
        "fps": shown.fps,
        "milliseconds": 1e3 * shown.seconds,
        "late": shown.late,
        "seed": loop.game.beginning.seed,
        "words": loop.game.beginning.words,
        "complaint": loop.complaint,
        "paused": loop.paused,
        "drift": None,
        # JSON has no infinity.
        "off": "lost" if shown.off == math.inf else shown.off,
    }
    pictures = [shown.frame]
    if shown.truth is not None:
        pictures.append(shown.truth)
        decibels = drift(shown.frame, shown.truth)
        header["drift"] = decibels if math.isfinite(decibels) else "equal"
    about = json.dumps(header).encode()
    pixels = b"".join(picture.permute(1, 2, 0).contiguous().numpy().tobytes() for picture in pictures)
    return len(about).to_bytes(4, "little") + about + pixels


class _Seat:
    """The place of the one who plays."""

    def __init__(
        self,
        loop: Loop,
        name: str,
        save: Callable[[], Path],
        draw: Callable[[str, World, int], Beginning] | None,
    ) -> None:
        self.loop, self.name, self._save, self.draw = loop, name, save, draw
        self._saved: list[Path] = []
        self._person: _Person | None = None

    async def sit(self, socket: WebSocket) -> None:
        """Play, until the page is closed or another one is opened."""
        await socket.accept()
        before, self._person = self._person, _Person(self, socket)
        person = self._person
        if before is not None:
            await before.leave(_TAKEN_OVER, "played in another window")
        try:
            await person.play()
        finally:
            if self._person is person:
                self._person = None
                self.loop.pause(True)

    async def video(self, request: Request) -> Response:
        """A video that was saved."""
        number = request.path_params["number"]
        if not 1 <= number <= len(self._saved):
            raise HTTPException(404)
        return FileResponse(self._saved[number - 1], media_type="video/mp4")

    async def save(self) -> dict[str, Any]:
        """Save what was played; what to tell the page."""
        file = await asyncio.to_thread(self._save)
        self._saved.append(file)
        return {
            "said": saved_line(self.loop.game, file),
            "video": f"saved/{len(self._saved)}.mp4",
            "name": file.name,
        }

    def facts(self) -> dict[str, Any]:
        """What a page begins with."""
        world = self.loop.game.world
        height, width = world.size
        return {
            "world": plain(self.name),
            "height": height,
            "width": width,
            "fps": world.fps,
            "pace": self.loop.fps,
            "buttons": list(world.buttons),
            "codes": list(world.names),
            "button_codes": dict(world.buttons),
            "keys": keys(world.buttons),
            "idle": self.loop.game.idle,
            "dream": not isinstance(world, TrueWorld),
            "draws": self.draw is not None,
            "pictures": self.draw is not None and 3 * height * width <= _MOST_BYTES,
        }


class _Person:
    """One page that plays."""

    def __init__(self, seat: _Seat, socket: WebSocket) -> None:
        self.seat, self.loop, self._socket = seat, seat.loop, socket
        self._sent = self._drawn = 0
        self._ready = asyncio.Event()
        self._orders: dict[str, Callable[[dict[str, Any]], Any]] = {
            "press": lambda order: self.loop.press(_text(order, "button"), _whole(order, "number")),
            "release": lambda order: self.loop.release(_text(order, "button")),
            "release all": lambda order: self.loop.release(),
            "pause": lambda order: self.loop.pause(bool(order.get("paused"))),
            "wait": lambda order: self.loop.wait_for_keys(bool(order.get("wait"))),
            "pace": lambda order: self.loop.set_fps(_rate(order)),
            "begin": self._begin,
            "drawn": self._has_drawn,
            "save": lambda order: self._later(self.seat.save()),
            "draw": lambda order: self._later(self._draw(_text(order, "prompt"))),
        }
        self._tasks: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Send pictures and take orders, until the page leaves."""
        loop = asyncio.get_running_loop()

        def pictured() -> None:
            # After the server has ended nobody is to be woken.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ready.set)

        self.loop.on_picture = pictured
        self._ready.set()
        sending = asyncio.create_task(self._send())
        try:
            await self._socket.send_json(self.seat.facts())
            await self._take()
        except WebSocketDisconnect:
            pass
        finally:
            sending.cancel()
            for task in self._tasks:
                task.cancel()

    async def leave(self, code: int, reason: str) -> None:
        """End it."""
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(code, reason)

    async def _send(self) -> None:
        number = 0
        while True:
            await self._ready.wait()
            self._ready.clear()
            if self._sent - self._drawn >= _IN_FLIGHT:
                continue
            try:
                shown = self.loop.shown
            except Exception as error:
                _log.error("the world failed", exc_info=error)
                await self.leave(_BROKEN, "the world failed: its terminal says why")
                return
            if shown.number > number:
                number = shown.number
                self._sent += 1
                try:
                    await self._socket.send_bytes(packed(shown, self.loop))
                except (RuntimeError, WebSocketDisconnect):
                    # The page is gone, and `_take` learns of it too.
                    return

    async def _take(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                if message.get("bytes") is not None:
                    self._picture(message["bytes"])
                    continue
                order = json.loads(message["text"])
                self._orders[order["do"]](order)
            except UserError as error:
                await self._socket.send_json({"said": str(error)})
            except (ValueError, KeyError, TypeError, RecursionError):
                await self.leave(1003, "no order of this page")
                return

    def _has_drawn(self, order: dict[str, Any]) -> None:
        self._drawn += 1
        self._ready.set()

    def _begin(self, order: dict[str, Any]) -> None:
        """Again by a seed, or anew: with a first frame of the world's own."""
        seed = _whole(order, "seed")
        anew = order.get("anew") is True
        self.loop.begin(Beginning(seed) if anew else replace(self.loop.game.beginning, seed=seed))

    def _picture(self, sent: bytes) -> None:
        height, width = self.loop.game.world.size
        if self.seat.draw is None or len(sent) != 3 * height * width:
            raise UserError(f"this world takes no picture of {len(sent)} bytes")
        frame = torch.frombuffer(bytearray(sent), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)
        seed = self.loop.game.beginning.seed
        self.loop.begin(Beginning(seed, frame[:, None].contiguous(), words="a picture"))

    async def _draw(self, prompt: str) -> dict[str, Any]:
        if self.seat.draw is None:
            raise UserError("this world cannot begin with a picture")
        began = time.monotonic()
        seed, world = self.loop.game.beginning.seed, self.loop.game.world
        beginning = await asyncio.to_thread(self.seat.draw, prompt[:_MOST_LETTERS], world, seed)
        self.loop.begin(beginning)
        return {"said": f"drawn in {time.monotonic() - began:.1f} s"}

    def _later(self, work: Any) -> None:
        """Do what takes seconds beside the game, and tell the page what came of it."""

        async def told() -> None:
            try:
                answer = await work
            except UserError as error:
                answer = {"said": str(error)}
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.send_json(answer)

        if self._tasks:
            work.close()
            raise UserError("one thing at a time: the last one is not done yet")
        task = asyncio.create_task(told())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _text(order: dict[str, Any], key: str) -> str:
    if not isinstance(order[key], str):
        raise TypeError(key)
    return order[key]


def _rate(order: dict[str, Any]) -> float:
    if (fps := number(order["fps"])) is None:
        raise TypeError("fps")
    return fps


def _whole(order: dict[str, Any], key: str) -> int:
    if type(order[key]) is not int:
        raise TypeError(key)
    return order[key]
