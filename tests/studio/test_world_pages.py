"""The view Worlds, and the way through to a world that is played in a process of its own."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")
pytest.importorskip("websockets", reason="needs websockets: pip install 'minisora[studio]'")

from minisora.serve.guard import Guard, new_token
from minisora.studio import world_pages
from minisora.studio.folders import Folders, run_id
from minisora.studio.world_pages import world_routes
from minisora.worlds.world_folder import WORLDS


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Two runs with worlds, one without, and a link that leads out."""
    fake = (sys.executable, str(Path(__file__).with_name("fake_world.py")))
    monkeypatch.setattr(world_pages, "COMMAND", fake)
    for name in ("garden", "broken"):
        (tmp_path / "runs" / name / "world").mkdir(parents=True)
        about = {"format": 1, "height": 64, "width": 48, "fps": 10.0, "steps": 2, "context_sigma": 0.1}
        (tmp_path / "runs" / name / "world" / "world.json").write_text(json.dumps(about))
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "world").symlink_to(tmp_path / "runs" / "garden" / "world")
    return Folders([], tmp_path / "runs")


@pytest.fixture
def app(folders: Folders, tmp_path: Path) -> Any:
    from starlette.applications import Starlette

    from minisora.serve.web_pages import ERRORS

    return Starlette(routes=world_routes(folders, tmp_path / "home"), exception_handlers=ERRORS)


class Page:
    """A websocket from the side of the page."""

    def __init__(self, app: Any) -> None:
        self.into: asyncio.Queue[Any] = asyncio.Queue()
        self.out: asyncio.Queue[Any] = asyncio.Queue()
        self.into.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws",
            "path": "/world/play", "raw_path": b"/world/play", "root_path": "", "query_string": b"", "headers": [],
            "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8420), "subprotocols": [],
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self.into.get, self.out.put))

    async def next(self) -> Any:
        message = await asyncio.wait_for(self.out.get(), 30)
        return await self.next() if message["type"] == "websocket.accept" else message


def play(script: Callable[[Any], Any], app: Any, within: Any) -> None:
    async def whole() -> None:
        try:
            await script(app)
        finally:
            await within(app, "DELETE", "/api/worlds", {})

    asyncio.run(whole())


def test_a_world_is_played_through_the_studio(app: Any, within: Any, tmp_path: Path) -> None:
    async def script(app: Any) -> None:
        status, found = await within(app, "GET", "/api/worlds")
        assert {each["name"]: each["size"] for each in found["worlds"]} == {
            "garden": [64, 48],
            "broken": [64, 48],
            "dream": [64, 64],
        }
        assert [each["name"] for each in found["worlds"] if each["shipped"]] == ["dream"]
        assert found["playing"] is None
        # Nobody plays yet.
        early = Page(app)
        assert (await early.next())["code"] == 4004
        status, playing = await within(
            app, "POST", "/api/worlds", {"world": run_id("garden"), "beside": True}
        )
        assert (status, playing["name"]) == (200, "garden")
        page = Page(app)
        words = (await page.next())["text"]
        garden, played = tmp_path / "runs" / "garden" / "world", tmp_path / "home" / "played"
        assert words == f"world play {garden} --beside --out {played} --port 0"
        page.into.put_nowait({"type": "websocket.receive", "text": "left"})
        assert (await page.next())["text"] == "tfel"
        page.into.put_nowait({"type": "websocket.receive", "bytes": b"\x01\x02"})
        assert (await page.next())["bytes"] == b"\x02\x01"
        assert (await within(app, "GET", "/world/saved/1.mp4")) == (200, b"a video")
        for wrong in ("2", "99999999999999999999", "x", "..%2f1", "-1"):
            assert (await within(app, "GET", f"/world/saved/{wrong}.mp4"))[0] == 404
        # What the world says at its end reaches the page.
        page.into.put_nowait({"type": "websocket.receive", "text": "leave"})
        end = await page.next()
        assert (end["type"], end["code"], end["reason"]) == (
            "websocket.close",
            4000,
            "played in another window",
        )
        # Another one takes its place.
        another = Page(app)
        await another.next()
        assert (await within(app, "POST", "/api/worlds", {"world": "arena"}))[0] == 200
        assert (await another.next())["type"] == "websocket.close"
        third = Page(app)
        assert (await third.next())["text"].startswith("world play arena --out")
        assert (await within(app, "POST", "/api/worlds", {"world": "dream"}))[0] == 200
        assert (await third.next())["type"] == "websocket.close"
        shipped = Page(app)
        assert (await shipped.next())["text"].startswith(f"world play {WORLDS / 'dream'} --out")
        assert (await within(app, "POST", "/api/worlds", {"world": "arena"}))[0] == 200
        assert (await shipped.next())["type"] == "websocket.close"
        third = Page(app)
        await third.next()
        third.into.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(third.task, 20)
        assert (await within(app, "GET", "/api/worlds"))[1]["playing"]["id"] == "arena"
        await within(app, "DELETE", "/api/worlds", {})
        assert (await within(app, "GET", "/api/worlds"))[1]["playing"] is None

    play(script, app, within)


TINY = """
clip: {frames: 5, height: 32, width: 32, fps: 10}
data: {num_validation_clips: 2, require_captions: false}
vae: {temporal_factor: 1, mixes_frames: false, widths: [16, 16], blocks_per_level: 1, latent_channels: 4}
dit: {width: 24, depth: 2, heads: 2, attention: factorised, text_conditioning: false}
world: {action_width: 16, action_depth: 2, window: 3, frames: 3}
train_vae: {steps: 3, batch_size: 2, crop: [1, 32, 32]}
train_actions: {steps: 3, batch_size: 2}
train_dynamics: {steps: 3, batch_size: 2}
"""


@pytest.mark.slow
def test_a_dream_that_was_learned_is_played_through_the_studio(within: Any, tmp_path: Path) -> None:
    """The model's own frames under the buttons that are pressed, by the real command."""
    from rich.console import Console
    from starlette.applications import Starlette

    from minisora.config import load
    from minisora.serve.web_pages import ERRORS
    from minisora.worlds.arena import ArenaSettings
    from minisora.worlds.dream import load_dream
    from minisora.worlds.naming import name_codes
    from minisora.worlds.recording import Recording, record
    from minisora.worlds.world_stages import train_world

    clips = record(Recording(ArenaSettings(32, 32, walls=0), frames=5), 6, tmp_path / "recording")
    (tmp_path / "tiny.yaml").write_text(TINY)
    config = load(tmp_path / "tiny.yaml", [], {"data.source": "folder", "data.path": clips})
    world = train_world(config, tmp_path / "runs" / "tiny", Console(quiet=True))
    name_codes([1, 4], [0, 1], 8, ("noop", "up")).write(world / "names.json")
    dream = load_dream(world, "cpu")
    first = dream.start(seed=5)[0]

    async def script(app: Any) -> None:
        listed, _ = (await within(app, "GET", "/api/worlds"))[1]["worlds"]
        assert (listed["name"], listed["size"], listed["named"]) == ("tiny", [32, 32], True)
        status, _ = await within(app, "POST", "/api/worlds", {"world": listed["id"]})
        assert status == 200
        page = Page(app)

        def send(**order: Any) -> None:
            page.into.put_nowait({"type": "websocket.receive", "text": json.dumps(order)})

        async def until(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            # What is wanted may be one of the pictures that a slow page is not shown, and they never end.
            async with asyncio.timeout(120):
                return await look_for(wanted)

        async def look_for(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            while True:
                message = await page.next()
                if (sent := message.get("bytes")) is None:
                    told = json.loads(message["text"])
                else:
                    send(do="drawn")
                    end = 4 + int.from_bytes(sent[:4], "little")
                    pixels = torch.frombuffer(bytearray(sent[end:]), dtype=torch.uint8)
                    told = json.loads(sent[4:end]) | {"picture": pixels.view(32, 32, 3).permute(2, 0, 1)}
                if wanted(told):
                    return told

        facts = await until(lambda told: "dream" in told)
        assert (facts["dream"], facts["buttons"], facts["height"]) == (True, ["noop", "up"], 32)
        send(do="pause", paused=True)
        send(do="begin", seed=5, anew=True)
        shown = await until(lambda told: told.get("seed") == 5 and told["step"] == 0)
        # Up to what another number of threads makes of the last bits.
        assert (shown["picture"].int() - first.int()).abs().max() <= 2
        send(do="press", button="up", number=1)
        send(do="pause", paused=False)
        shown = await until(lambda told: told.get("step", 0) >= 1)
        assert shown["button"] == "up"
        for _ in range(shown["step"]):
            after = dream.step([4])[0]
        assert (shown["picture"].int() - after.int()).abs().max() <= 2
        send(do="save")
        saved = await until(lambda told: "video" in told)
        video = (await within(app, "GET", f"/world/{saved['video']}"))[1]
        assert video[4:8] == b"ftyp"
        assert len(list((tmp_path / "home" / "played").glob("*.mp4"))) == 1

    routes = world_routes(Folders([], tmp_path / "runs"), tmp_path / "home")
    play(script, Starlette(routes=routes, exception_handlers=ERRORS), within)


def test_what_cannot_be_played_is_one_line(app: Any, within: Any) -> None:
    async def script(app: Any) -> None:
        for wrong in ("../garden", "/etc", run_id("other"), run_id("nowhere"), "", "arena --host 0.0.0.0"):
            status, told = await within(app, "POST", "/api/worlds", {"world": wrong})
            assert (status, told["error"]) == (400, "there is no such world here: load the page again")
        status, told = await within(app, "POST", "/api/worlds", {"world": run_id("broken")})
        assert (status, told["error"]) == (400, "this world is damaged: train it again")
        status, told = await within(app, "POST", "/api/worlds", {"world": "arena", "out": "/tmp"})
        assert told["error"] == "unknown key 'out': use world, beside"
        assert (await within(app, "GET", "/api/worlds"))[1]["playing"] is None

    play(script, app, within)


def test_a_world_answers_the_studio_alone(app: Any, within: Any) -> None:
    """Another user of the machine finds its port, and has no token."""

    async def script(app: Any) -> None:
        await within(app, "POST", "/api/worlds", {"world": "arena"})
        begin = next(route for route in app.routes if "POST" in (getattr(route, "methods", None) or ()))
        world = begin.endpoint.__self__._world
        with socket.create_connection(("127.0.0.1", world.port), timeout=10) as stranger:
            key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
            asks = (
                f"GET /play HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}"
            )
            stranger.sendall(f"{asks}\r\n\r\n".encode())
            assert b" 401 " in (await asyncio.to_thread(stranger.recv, 100))
        # Its token is told to no page.
        for path in ("/api/worlds", "/world/", "/world/play.js"):
            assert world._token.encode() not in json.dumps(str(await within(app, "GET", path))).encode()

    play(script, app, within)


def test_the_page_of_a_world_is_behind_the_same_guard(app: Any, ask: Any) -> None:
    token = new_token()
    guarded = Guard(app, token)
    host, bearer = ("host", "127.0.0.1:8420"), ("authorization", f"Bearer {token}")
    for path in ("/api/worlds", "/world/", "/world/play.js", "/world/style.css", "/world/saved/1.mp4"):
        assert ask(guarded, "GET", path, [host]).status == 401
        foreign = [host, bearer, ("origin", "http://evil.example"), ("content-type", "application/json")]
        assert ask(guarded, "POST", path, [*foreign, ("content-length", "2")], b"{}").status == 403
    assert ask(guarded, "GET", "/world/", [host, bearer]).status == 200
    assert ask(guarded, "GET", "/world/style.css", [host, bearer]).status == 200
    for headers in ([host], [host, bearer], [host, bearer, ("origin", "http://evil.example")]):
        assert ask(guarded, "websocket", "/world/play", headers).status == 403
    own = ("origin", "http://127.0.0.1:8420")
    assert ask(guarded, "websocket", "/world/play", [host, bearer, own]).status == 101
