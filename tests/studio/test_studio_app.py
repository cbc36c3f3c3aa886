"""What pages ask for and change, as requests; behind the guard where that is the point."""

import asyncio
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")

from minisora.pipelines.recipe import pack_mask
from minisora.serve.guard import Guard, new_token
from minisora.studio import upload_pages
from minisora.studio.job_store import JobStore
from minisora.studio.studio_app import PAGE, studio_app
from minisora.studio.worker import work_one


@pytest.fixture
def engine(store: JobStore, fake: ModuleType) -> Any:
    engine = fake.FakeEngine()
    store.tell_model("toy", engine.facts("toy"))
    return engine


@pytest.fixture
def send(store: JobStore, engine: Any, ask: Any) -> Any:
    """Sends JSON to the studio: (method, path, value)."""
    app = studio_app(store, lambda: "ready")

    def send(method: str, path: str, value: Any = None) -> Any:
        return ask(app, method, path, [], b"" if value is None else json.dumps(value).encode())

    return send


ASKED = {"model": "toy", "prompt": "a red  circle\nmoving left", "frames": 9, "height": 64, "width": 64, "steps": 3,
         "guidance": 3, "seed": 2**32 - 2, "count": 4}  # fmt: skip


def test_four_variations_are_made_and_shown(store: JobStore, engine: Any, send: Any) -> None:
    jobs = send("POST", "/api/jobs", ASKED).json["jobs"]
    assert [store.job(job)["request"]["seed"] for job in jobs] == [2**32 - 2, 2**32 - 1, 0, 1]  # type: ignore[index]
    state = send("GET", "/api/state").json
    assert [job["id"] for job in state["jobs"]] == jobs
    assert {job["batch"] for job in state["jobs"]} == {jobs[0]}
    assert state["models"]["toy"]["words"]
    assert state["speeds"] == {}
    while work_one(store, engine):
        pass
    found = send("GET", "/api/clips?search=circle&limit=3").json
    assert (found["total"], [clip["id"] for clip in found["clips"]]) == (4, jobs[:0:-1])
    # Spaces of the prompt are one each, as the model reads it.
    assert found["clips"][0]["recipe"]["prompt"] == "a red circle moving left"
    speeds = send("GET", "/api/state").json["speeds"]
    assert speeds["toy"]["9x64x64"][1] == 4
    video = send("GET", f"/clips/{jobs[0]}.mp4")
    assert (video.status, video.headers["content-type"], video.body[4:8]) == (200, "video/mp4", b"ftyp")
    assert send("GET", f"/clips/{jobs[0]}.png").body[:4] == b"\x89PNG"
    assert send("POST", f"/api/clips/{jobs[0]}", {"favourite": True}).status == 200
    assert send("GET", "/api/clips?favourites=1").json["total"] == 1
    assert send("DELETE", f"/api/clips/{jobs[0]}", {}).status == 200
    assert send("GET", f"/clips/{jobs[0]}.mp4").status == 404


def test_a_seed_that_is_not_said_is_fresh(store: JobStore, send: Any) -> None:
    seeds = {
        store.job(send("POST", "/api/jobs", {**ASKED, "seed": None, "count": 1}).json["jobs"][0])["request"][
            "seed"
        ]  # type: ignore[index]
        for _ in range(3)
    }
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "../../etc"}, "there is no model '../../etc' here, or it is still being read"),
        ({"prompt": "   "}, "say what to show, such as 'a red circle moving left'"),
        ({"prompt": "x" * 2001}, "the recipe's prompt must be a text of at most 2000 characters"),
        ({"frames": 16}, "16 frames of 64x64 are not on offer: choose a size of the list"),
        ({"width": 10**9}, "9 frames of 64x1000000000 are not on offer: choose a size of the list"),
        ({"steps": 0}, "the recipe's steps = 0 must be at least 1 and at most 1000"),
        ({"steps": 10**6}, "the recipe's steps = 1000000 must be at least 1 and at most 1000"),
        ({"guidance": 1001}, "the recipe's guidance = 1001 must be at least 0 and at most 1000"),
        ({"guidance": 10**309}, f"the recipe's guidance = {10**309} must be at least 0 and at most 1000"),
        ({"seed": -1}, "seed = -1 must be at least 0 and at most 4294967295"),
        ({"count": 9}, "variations = 9 must be at least 1 and at most 8"),
        ({"count": 0}, "variations = 0 must be at least 1 and at most 8"),
        ({"path": "/etc/passwd"}, "unknown key 'path': use model, prompt, frames, height, width, steps, guidance, "
         "seed, count, mode, parents, frame, strength, keep, mask, masks, span, keyframes, later"),
        ({"steps": "3"}, "'steps' has a value of the wrong type"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_line(store: JobStore, send: Any, change: Any, error: str) -> None:
    answer = send("POST", "/api/jobs", {**ASKED, **change})
    assert (answer.status, answer.json) == (400, {"error": error})
    assert store.open_jobs() == []


MASK = pack_mask([[20 <= row < 40 and column < 9 for column in range(64)] for row in range(64)])


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({"mode": "extend", "parents": [1]}, 3),
        ({"mode": "animate", "parents": [1], "frame": 8}, 3),
        ({"mode": "connect", "parents": [1, 2]}, 3),
        ({"mode": "inpaint", "parents": [2], "mask": MASK}, 3),
        ({"mode": "inpaint", "parents": [2], "masks": [[0, MASK], [8, MASK]]}, 3),
        ({"mode": "keyframes", "parents": [1, 2, 1], "keyframes": [0, 8, 3], "later": ["a blue circle"]}, 6),
        # Of noise levels 1, 0.8, 0.5 two lie below 0.9; without what both say, steps are counted from 0.7.
        ({"mode": "restyle", "parents": [1], "strength": 0.9, "keep": True}, 2),
        ({"mode": "restyle", "parents": [1], "strength": 0.7}, 2),
    ],
)  # fmt: skip
def test_a_video_is_made_from_others(store: JobStore, engine: Any, send: Any, more: Any, steps: int) -> None:
    send("POST", "/api/jobs", {**ASKED, "count": 2})
    while work_one(store, engine):
        pass
    (job,) = send("POST", "/api/jobs", {**ASKED, **more, "count": 1}).json["jobs"]
    assert store.job(job)["steps"] == steps  # type: ignore[index]
    work_one(store, engine)
    clip = send("GET", f"/api/clips/{job}").json
    assert clip["parents"] == more["parents"]
    recipe = clip["recipe"]
    assert recipe["mode"] == more["mode"]
    assert [parent["prompt"] for parent in recipe["parents"]] == ["a red circle moving left"] * len(
        more["parents"]
    )
    assert recipe.get("source") == ("a red circle moving left" if more.get("keep") else None)
    assert send("GET", f"/api/clips/{more['parents'][0]}").json["children"] == [job]
    # A plan says beforehand what it comes to.
    query = (
        f"model=toy&mode={more['mode']}&size=9x64x64&steps=3&guidance=3&strength={more.get('strength', 1)}"
        f"&segments={max(1, len(more.get('keyframes', ())) - 1)}"
    )
    planned = send("GET", f"/api/plan?{query}&keep={int(more.get('keep', False))}").json
    assert planned["steps"] == steps
    assert planned["flops"] > 0


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"mode": "dream"}, "which this minisora does not know"),
        ({"mode": "extend"}, "extend is made from 1 videos, not from 0"),
        ({"mode": "extend", "parents": [1, 1]}, "extend is made from 1 videos, not from 2"),
        ({"mode": "extend", "parents": [1] * 100}, "parents must be at most 5 recipes"),
        ({"mode": "extend", "parents": [99]}, "the video to begin with is not there any more"),
        ({"mode": "extend", "parents": ["../1"]}, "the video to begin with is not there any more"),
        ({"mode": "extend", "parents": [True]}, "the video to begin with is not there any more"),
        ({"mode": "extend", "parents": [10**30]}, "the video to begin with is not there any more"),
        ({"mode": "extend", "parents": [1], "mask": MASK}, "extend takes no mask"),
        ({"mode": "keyframes", "parents": [1] * 6, "keyframes": [0] * 6}, "at most 5 recipes"),
        ({"mode": "keyframes", "parents": [1, 1], "keyframes": [0, "x"]}, "a keyframe = x must be a whole number"),
        ({"mode": "inpaint", "parents": [1], "masks": [[0, MASK, 1]]}, "at most 8 pairs of a frame and a mask"),
        ({"mode": "inpaint", "parents": [1], "masks": [0]}, "at most 8 pairs of a frame and a mask"),
        ({"mode": "long", "later": ["x"] * 8}, "9 prompts for at most 8 segments"),
        ({"mode": "trim", "parents": [1], "span": [0, 99]}, "the video has 9 frames, not 99: trim fewer"),
        ({"mode": "trim", "parents": [1], "span": [3]}, "the recipe's span must be two frames"),
        ({"mode": "trim", "parents": [1]}, "trim needs a span"),
        ({"mode": "trim", "span": [0, 1]}, "trim is made from 1 videos, not from 0"),
        ({"mode": "trim", "parents": [1, 1], "span": [0, 1]}, "trim is made from 1 videos, not from 2"),
        ({"mode": "upload"}, "upload needs a name"),
        ({"mode": "inpaint", "parents": [1]}, "inpaint needs a mask"),
        ({"mode": "inpaint", "parents": [1], "mask": "AAAA"}, "the mask is not of 64x64 pixels"),
        ({"mode": "inpaint", "parents": [1], "mask": "<b>"}, "the mask is not base64"),
        ({"mode": "inpaint", "parents": [1], "mask": pack_mask([[False] * 64] * 64)}, "the mask is empty"),
        ({"mode": "restyle", "parents": [1], "strength": 0}, "strength = 0 must be above 0"),
        ({"mode": "restyle", "parents": [1], "strength": 0.1, "keep": True}, "no step of 3 lies below strength = 0.1"),
        ({"mode": "animate", "parents": [1], "frame": -1}, "frame = -1 must be at least 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_from_others_is_one_line(
    store: JobStore, engine: Any, send: Any, more: Any, error: str
) -> None:
    send("POST", "/api/jobs", {**ASKED, "count": 1})
    work_one(store, engine)
    answer = send("POST", "/api/jobs", {**ASKED, **more})
    assert answer.status == 400
    assert error in answer.json["error"]
    assert store.open_jobs() == []


def test_a_part_is_cut_and_a_long_video_has_its_segments(store: JobStore, engine: Any, send: Any) -> None:
    asked = {**ASKED, "count": 1, "mode": "long", "later": ["b", "c"]}
    (long,) = send("POST", "/api/jobs", asked).json["jobs"]
    assert store.job(long)["steps"] == 9  # type: ignore[index]
    work_one(store, engine)
    planned = send("GET", "/api/plan?model=toy&mode=long&size=9x64x64&steps=3&guidance=3&segments=3").json
    costs = engine.facts("toy")["costs"]
    each, later = (fixed + 6 * step for fixed, step in (costs[f"{t}x64x64"]["plain"] for t in (9, 17)))
    assert (planned["steps"], planned["flops"]) == (9, each + 2 * later)
    asked = {"model": "toy", "mode": "trim", "parents": [long], "span": [2, 7]}
    (part,) = send("POST", "/api/jobs", asked).json["jobs"]
    work_one(store, engine)
    clip = send("GET", f"/api/clips/{part}").json
    assert (clip["parents"], clip["frames"], clip["recipe"]["span"]) == ([long], 5, [2, 7])
    assert clip["recipe"]["prompt"] == "a red circle moving left"
    assert clip["recipe"]["parents"][0]["later"] == ["b", "c"]


def test_a_parent_that_is_removed_meanwhile_is_told(store: JobStore, engine: Any, send: Any) -> None:
    send("POST", "/api/jobs", {**ASKED, "count": 1})
    work_one(store, engine)
    (job,) = send("POST", "/api/jobs", {**ASKED, "mode": "loop", "parents": [1], "count": 1}).json["jobs"]
    send("DELETE", "/api/clips/1", {})
    work_one(store, engine)
    assert store.job(job)["error"] == "the video that it was to be made from is not there any more"  # type: ignore[index]


def test_nan_is_refused(store: JobStore, send: Any) -> None:
    answer = send("POST", "/api/jobs", {**ASKED, "guidance": float("nan")})
    assert answer.status == 400
    assert "guidance" in answer.json["error"]
    assert store.open_jobs() == []


def test_a_full_disk_is_told_before(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_pages, "LEAST_FREE", 10**18)
    answer = send("POST", "/api/jobs", ASKED)
    assert answer.status == 400
    assert "of the disk are free" in answer.json["error"]


def test_the_queue_is_changed(store: JobStore, send: Any) -> None:
    a, b, c, _ = send("POST", "/api/jobs", ASKED).json["jobs"]
    assert send("POST", f"/api/jobs/{c}/move", {"before": a}).status == 200
    assert send("POST", f"/api/jobs/{b}/cancel", {}).status == 200
    assert [job["id"] for job in store.open_jobs()][:2] == [c, a]
    assert send("POST", f"/api/jobs/{b}/retry", {}).status == 200
    for path in (
        f"/api/jobs/{b}/cancel",
        "/api/jobs/999/cancel",
        f"/api/jobs/{a}/retry",
        "/api/jobs/999/move",
    ):
        assert send("POST", path, {}).status == 404
    assert send("GET", f"/api/jobs/{a}/preview").status == 204
    store.tell_step(a, 1, b"\x89PNG")
    assert send("GET", f"/api/jobs/{a}/preview").body == b"\x89PNG"


@pytest.mark.parametrize(
    "number",
    ["../studio.sqlite", "..%2f..%2fetc%2fpasswd", "%2e%2e/studio.sqlite", "1/../../studio.sqlite", "-1", "1e1", "0x1",
     "1;drop table clips", "99999999999999999999", "", " ", "1%00", "١"],
)  # fmt: skip
def test_nothing_but_a_number_leads_to_a_file(send: Any, number: str) -> None:
    for path in (
        f"/clips/{number}.mp4",
        f"/clips/{number}.png",
        f"/api/clips/{number}",
        f"/api/jobs/{number}/preview",
    ):
        assert send("GET", path).status == 404


def test_markup_in_a_prompt_stays_text(store: JobStore, engine: Any, send: Any) -> None:
    prompt = "<script>alert(1)</script> <img src=x onerror=alert(1)> red"
    (job,) = send("POST", "/api/jobs", {**ASKED, "prompt": prompt, "count": 1}).json["jobs"]
    work_one(store, engine)
    answer = send("GET", f"/api/clips/{job}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["recipe"]["prompt"] == prompt
    # The page has no way to make markup of text: none of these stands in its scripts.
    for script in PAGE.glob("*.js"):
        text = script.read_text()
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "http:",
        ):
            assert way not in text.replace("http://www.w3.org/2000/svg", ""), (script.name, way)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text, file.name
        assert " style=" not in text, file.name
    index = (PAGE / "index.html").read_text()
    assert "<script>" not in index
    assert "onclick" not in index


def _events(app: Any, headers: list[tuple[bytes, bytes]], query: bytes, until: int) -> list[dict[str, str]]:
    """The first so many events of the stream."""
    text = b""
    enough = asyncio.Event()

    async def send(message: Any) -> None:
        nonlocal text
        text += message.get("body", b"")
        if text.count(b"\ndata:") >= until:
            enough.set()

    async def receive() -> Any:
        await enough.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": "/api/events", "raw_path": b"/api/events",
        "query_string": query, "headers": headers, "scheme": "http", "root_path": "", "asgi": {"version": "3.0"},
        "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    found = []
    for block in text.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in fields:
            found.append(fields)
    return found


def test_events_go_on_where_the_page_was(store: JobStore, engine: Any, send: Any, asked: Any) -> None:
    app = studio_app(store, lambda: "ready")
    known = store.version
    (job,) = store.add_jobs([asked(7)], 3)
    first = _events(app, [], f"after={known}".encode(), 2)
    changes = json.loads(first[0]["data"])
    assert [(each["id"], each["state"]) for each in changes["jobs"]] == [(job, "queued")]
    assert int(first[0]["id"]) == changes["version"] == store.version
    assert json.loads(first[1]["data"])["worker"] == "ready"
    # The tab sleeps; meanwhile all is done.
    work_one(store, engine)
    (later, _) = _events(app, [(b"last-event-id", first[0]["id"].encode())], b"", 2)
    changes = json.loads(later["data"])
    assert [(each["id"], each["state"]) for each in changes["jobs"]] == [(job, "done")]
    assert [clip["id"] for clip in changes["clips"]] == [job]
    assert changes["total"] == 1
    assert changes["speeds"]["toy"][""][1] == 1
    # Each of several models is told as soon as it was read.
    store.tell_model("bad", {"error": "it is damaged"})
    told = json.loads(_events(app, [], f"after={store.version}".encode(), 1)[0]["data"])
    assert list(told["models"]) == store.model_names() == ["toy", "bad"]
    for wrong in (b"after=x", b"after=-1", "after=١".encode(), b"after=" + b"9" * 30):
        assert send("GET", f"/api/events?{wrong.decode()}").status == 400


def test_a_model_that_is_read_later_is_told_later(store: JobStore, engine: Any) -> None:
    """The page is at the stream already when the second one comes, and nothing else changes."""
    looks = 0

    def state() -> str:
        nonlocal looks
        looks += 1
        if looks == 3:
            store.tell_model("second", {"steps": 3})
        return "starting"

    events = _events(studio_app(store, state), [], f"after={store.version}".encode(), 3)
    told = [list(value["models"]) for event in events if "models" in (value := json.loads(event["data"]))]
    assert told == [["toy"], ["toy", "second"]]


def test_behind_the_guard_nothing_is_open(store: JobStore, engine: Any, ask: Any) -> None:
    """Every route, also those of the page's files: without the token and from another page."""
    token = new_token()
    app = studio_app(store, lambda: "ready")
    guarded = Guard(app, token)
    host, bearer = ("host", "127.0.0.1:8420"), ("authorization", f"Bearer {token}")
    paths = [route.path.replace("{number:int}", "1") for route in app.routes]  # type: ignore[attr-defined]
    assert len(paths) > 20
    for path in paths:
        assert ask(guarded, "GET", path, [host]).status == 401
        assert ask(guarded, "GET", path, [("host", "evil.example"), bearer]).status == 403
        for method in ("POST", "DELETE"):
            foreign = [host, bearer, ("origin", "http://evil.example"), ("content-type", "application/json")]
            assert ask(guarded, method, path, [*foreign, ("content-length", "2")], b"{}").status == 403
            plain = [host, bearer, ("origin", "http://127.0.0.1:8420"), ("content-type", "text/plain")]
            assert ask(guarded, method, path, [*plain, ("content-length", "2")], b"{}").status == 415
    assert store.open_jobs() == []


def test_a_studio_is_one_for_a_folder(tmp_path: Path) -> None:
    from filelock import FileLock

    from minisora.errors import UserError
    from minisora.studio.run_studio import name_models, run_studio

    with FileLock(tmp_path / "studio.lock"), pytest.raises(UserError, match="another studio runs in"):
        run_studio(["toy"], tmp_path, None, 0, print)
    with pytest.raises(UserError, match=r"nowhere is not a model folder: .* or a name: toy"):
        name_models(["nowhere"])
    for run in ("a", "b"):
        (tmp_path / run / "mine" / "model").mkdir(parents=True)
        (tmp_path / run / "mine" / "model" / "model_index.json").write_text("{}")
    folders = [str(tmp_path / run / "mine" / "model") for run in ("a", "b")]
    assert name_models(["toy", *folders]) == {"toy": "toy", "mine": folders[0], "mine 2": folders[1]}
    # A name is letters, whatever bytes the folder's has.
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    (odd / "model").mkdir(parents=True)
    (odd / "model" / "model_index.json").write_text("{}")
    assert list(name_models([str(odd / "model")])) == [r"caf\udce9"]
