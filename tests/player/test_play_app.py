"""The page's server: pictures as the page takes them, one page at a time, late ones never sent, nothing else obeyed."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisora.errors import UserError
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.game import Beginning, Game
from minisora.worlds.play import Loop, Shown
from minisora.worlds.session import write_session
from minisora.worlds.world import TrueWorld

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")

from minisora.player.play_app import packed, play_app


class Dream(TrueWorld):
    """As true as the arena, and begun with any frame."""

    def start(self, frames: torch.Tensor | None = None, seed: int = 0) -> torch.Tensor:
        first = super().start(seed=seed)
        return first if frames is None else frames.reshape(1, 3, -1, *self.size)[:, :, -1]


def make_loop(world: TrueWorld, truth: TrueWorld | None = None) -> Loop:
    game = Game(world, truth)
    game.begin(Beginning(1))
    loop = Loop(game, 60)
    loop.pause(True)
    return loop


SMALL = ArenaSettings(16, 24, walls=0)


def unpacked(message: bytes) -> tuple[dict[str, Any], np.ndarray]:
    length = int.from_bytes(message[:4], "little")
    pixels = np.frombuffer(message[4 + length :], np.uint8).reshape(-1, 16, 24, 3)
    return json.loads(message[4 : 4 + length]), pixels


class Page:
    """One websocket of an application, from the side of the page."""

    def __init__(self, app: Any) -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._in.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws",
            "path": "/play", "raw_path": b"/play", "root_path": "", "query_string": b"", "headers": [],
            "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8421), "subprotocols": [],
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self._in.get, self._out.put))

    def send(self, order: dict[str, Any] | bytes | str) -> None:
        sent = {"bytes": order} if isinstance(order, bytes) else {"text": order}
        if isinstance(order, dict):
            sent = {"text": json.dumps(order)}
        self._in.put_nowait({"type": "websocket.receive"} | sent)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that fits; pictures are drawn at once, and their header is the message."""
        # Pictures never end, and the one that is looked for may be among those that a slow page is not shown.
        async with asyncio.timeout(120):
            return await self._look_for(wanted)

    async def _look_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            message = await asyncio.wait_for(self._out.get(), 60)
            if message["type"] == "websocket.close":
                told: dict[str, Any] = {"code": message["code"]}
            elif message.get("bytes") is not None:
                about, pixels = unpacked(message["bytes"])
                told = about | {"pixels": pixels}
                self.send({"do": "drawn"})
            else:
                told = json.loads(message["text"]) if "text" in message else {}
            if wanted(told):
                return told

    async def leave(self) -> None:
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.task


def run(script: Callable[[Any, Loop], Awaitable[None]], loop: Loop, tmp_path: Path, **options: Any) -> None:
    save = lambda: write_session(tmp_path, loop.game.played(), "arena", 10)  # noqa: E731

    async def whole() -> None:
        await script(play_app(loop, "arena", save, options.get("draw")), loop)

    with loop:
        asyncio.run(whole())


def test_a_picture_is_a_header_and_the_bytes_of_both_worlds() -> None:
    loop = make_loop(Dream(SMALL), TrueWorld(SMALL))
    about, pixels = unpacked(packed(loop.shown, loop))
    assert about["drift"] == "equal"
    assert (about["step"], about["seed"], about["paused"]) == (0, 1, True)
    assert np.array_equal(pixels[0], loop.shown.frame.permute(1, 2, 0))
    other = Shown(2, 1, loop.shown.frame, 255 - loop.shown.frame, "left")
    assert 0 < unpacked(packed(other, loop))[0]["drift"] < 30


def test_a_key_comes_back_as_a_picture_and_what_was_played_is_saved(tmp_path: Path, ask: Any) -> None:
    async def script(app: Any, loop: Loop) -> None:
        page = Page(app)
        facts = await page.until(lambda told: "buttons" in told)
        assert (facts["height"], facts["width"], facts["dream"], facts["draws"]) == (16, 24, False, False)
        assert facts["keys"]["ArrowLeft"] == "left"
        page.send({"do": "press", "button": "left", "number": 1})
        answer = await page.until(lambda told: told.get("press") == 1)
        assert answer["button"] == "left"
        page.send({"do": "pause", "paused": True})
        page.send({"do": "save"})
        saved = await page.until(lambda told: "video" in told)
        assert saved["video"] == "saved/1.mp4"
        assert (tmp_path / saved["name"]).is_file()
        page.send({"do": "begin", "seed": 7})
        await page.until(lambda told: told.get("seed") == 7)
        await page.leave()
        assert loop.paused

        app_saved = await asyncio.to_thread(ask, app, "GET", "/saved/1.mp4")
        assert (app_saved.status, app_saved.headers["content-type"]) == (200, "video/mp4")
        assert [
            (await asyncio.to_thread(ask, app, "GET", f"/saved/{n}.mp4")).status for n in ("0", "2", "x")
        ] == [404] * 3
        assert (await asyncio.to_thread(ask, app, "GET", "/style.css")).status == 200

    run(script, make_loop(TrueWorld(SMALL)), tmp_path)


def test_a_page_that_draws_nothing_gets_two_pictures_and_then_the_latest(tmp_path: Path) -> None:
    async def script(app: Any, loop: Loop) -> None:
        page = Page(app)
        page.send({"do": "press", "button": "left", "number": 1})
        received: list[int] = []
        while loop.shown.number < 20:
            await asyncio.sleep(0)
            while not page._out.empty():
                if (message := page._out.get_nowait()).get("bytes"):
                    received.append(unpacked(message["bytes"])[0]["number"])
        assert len(received) == 2
        page.send({"do": "drawn"})
        latest = await page.until(lambda told: "step" in told)
        assert latest["number"] >= 20
        await page.leave()

    run(script, make_loop(TrueWorld(SMALL)), tmp_path)


def test_the_page_opened_last_plays(tmp_path: Path) -> None:
    async def script(app: Any, loop: Loop) -> None:
        first = Page(app)
        await first.until(lambda told: "step" in told)
        second = Page(app)
        assert (await first.until(lambda told: "code" in told))["code"] == 4000
        await first.leave()
        second.send({"do": "press", "button": "up", "number": 3})
        assert (await second.until(lambda told: told.get("press") == 3))["button"] == "up"
        await second.leave()

    run(script, make_loop(TrueWorld(SMALL)), tmp_path)


def test_a_picture_and_words_begin_a_dream_and_the_arena_takes_neither(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)

    def draw(prompt: str, world: Any, seed: int) -> Beginning:
        if prompt == "nothing":
            raise UserError("the model knows no word of it")
        return Beginning(
            seed, torch.full((3, 1, 16, 24), len(prompt), dtype=torch.uint8), words=f"drawn: {prompt}"
        )

    async def dreams(app: Any, loop: Loop) -> None:
        page = Page(app)
        page.send(picture.tobytes())
        begun = await page.until(lambda told: told.get("words") == "a picture")
        assert np.array_equal(begun["pixels"][0], picture)
        page.send({"do": "draw", "prompt": "dog"})
        begun = await page.until(lambda told: told.get("words") == "drawn: dog")
        assert (begun["pixels"] == 3).all()
        page.send({"do": "begin", "seed": 9})
        again = await page.until(lambda told: told.get("seed") == 9)
        assert (again["pixels"] == 3).all()
        page.send({"do": "begin", "seed": 8, "anew": True})
        own = await page.until(lambda told: told.get("seed") == 8)
        assert (own["words"], (own["pixels"] == 3).all()) == ("", False)
        page.send({"do": "draw", "prompt": "nothing"})
        assert await page.until(lambda told: "no word" in told.get("said", ""))
        page.send(b"abc")
        assert await page.until(lambda told: "takes no picture of 3 bytes" in told.get("said", ""))
        await page.leave()

    async def true(app: Any, loop: Loop) -> None:
        page = Page(app)
        page.send(picture.tobytes())
        assert await page.until(lambda told: "takes no picture" in told.get("said", ""))
        page.send({"do": "draw", "prompt": "dog"})
        assert await page.until(lambda told: "cannot begin" in told.get("said", ""))
        await page.leave()

    run(dreams, make_loop(Dream(SMALL)), tmp_path, draw=draw)
    run(true, make_loop(TrueWorld(SMALL)), tmp_path)


@pytest.mark.parametrize(
    "order",
    [
        "[", "[]", '"x"', "7", "{}", '{"do": []}', '{"do": "format"}', '{"do": "press", "button": 1, "number": 1}',
        '{"do": "press", "button": "left", "number": true}', '{"do": "begin", "seed": 1e9}',
        '{"do": "pace", "fps": "x"}',
        "[" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_order_ends_the_page(order: str, tmp_path: Path) -> None:
    async def script(app: Any, loop: Loop) -> None:
        page = Page(app)
        page.send(order)
        assert (await page.until(lambda told: "code" in told))["code"] == 1003
        await page.task

    run(script, make_loop(TrueWorld(SMALL)), tmp_path)


def test_an_order_that_cannot_be_is_answered_in_a_line(tmp_path: Path) -> None:
    async def script(app: Any, loop: Loop) -> None:
        page = Page(app)
        page.send({"do": "save"})
        assert await page.until(lambda told: "play first" in told.get("said", ""))
        page.send({"do": "pace", "fps": 1e9})
        assert await page.until(lambda told: "fps" in told.get("said", ""))
        page.send({"do": "begin", "seed": -1})
        assert await page.until(lambda told: "seed" in told.get("said", ""))
        page.send({"do": "press", "button": "jump", "number": 1})
        page.send({"do": "press", "button": "up", "number": 2})
        assert (await page.until(lambda told: told.get("press") == 2))["button"] == "up"
        await page.leave()

    run(script, make_loop(TrueWorld(SMALL)), tmp_path)
