"""What the view Train asks for and changes, as requests; and that it gives nothing else away."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")

from starlette.requests import Request

from minisora.errors import UserError
from minisora.serve.guard import Guard, new_token
from minisora.studio import folder_checks, upload_pages
from minisora.studio.folders import Folders, run_id
from minisora.studio.job_store import JobStore
from minisora.studio.run_facts import POINTS, curves, run_facts
from minisora.studio.studio_app import studio_app
from minisora.studio.train_pages import sandbox, train_routes

PART = {"usable": 3, "files": 3, "kept": 3, "clip": {"frames": 17, "height": 64, "width": 64, "fps": 8.0}}
FOUND = {"clips": PART, "suggested": PART, "reasons": "", "sets": {"clip.fps": 15, "data.fit": "crop"}}
BAD = {"clips": {**PART, "usable": 0}, "suggested": None, "reasons": "", "sets": {}}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    for name in ("games", "bad"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "a.mp4").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "index.html").write_text("secret")
    return Folders([tmp_path / "clips"], tmp_path / "runs")


@pytest.fixture
def app(store: JobStore, folders: Folders) -> Any:
    return studio_app(store, lambda: "ready", more=train_routes(store, folders))


@pytest.fixture
def send(app: Any, ask: Any) -> Callable[..., Any]:
    """Sends JSON to the studio: (method, path, value)."""
    return lambda method, path, value=None: ask(
        app, method, path, [], b"" if value is None else json.dumps(value).encode()
    )


@pytest.fixture
def checked(app: Any, folders: Folders) -> dict[str, str]:
    """Ids of the folders, which the doctor has seen."""
    ids = {each.name.rpartition("/")[2]: each.id for each in folders.data_folders()}
    checks = next(r for r in app.routes if r.path == "/api/train").endpoint.__self__.checks
    checks._known = {
        (ids[name], learns): {"state": "done", **found}
        for name, found in (("games", FOUND), ("bad", BAD)) for learns in ("videos", "world")
    }  # fmt: skip
    return ids


def make_run(folders: Folders, name: str, old: float = 600.0, **plan: Any) -> Path:
    """A run that another command has left."""
    run = folders.run(name)
    (run / "page" / "samples").mkdir(parents=True)
    rows = [{"stage": "vae", "step": step, "loss": 1 / step, "val_psnr": 20.0} for step in range(1, 1001)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.yaml").write_text("{}")
    stages = plan.pop("stages", ("vae", "dit"))
    plan = {
        "minutes": 5,
        "taken": 61.5,
        "stages": {name: {"steps": 1200, "seconds": 9.0} for name in stages},
        **plan,
    }
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "page" / "samples" / "00.mp4").write_bytes(b"\0\0\0 ftyp")
    shown = {"samples": {"step": 7, "clips": [{"caption": "<b>red</b>"}, {"caption": "gone"}]}}
    (run / "page" / "shown.json").write_text(json.dumps(shown))
    (run / "index.html").write_text(f'<p>\n<meta http-equiv="refresh" content="60">\n</p>{name}')
    for file in run.iterdir():
        os.utime(file, (time.time() - old, time.time() - old))
    return run


def test_a_training_is_asked_for_by_ids(
    store: JobStore, folders: Folders, send: Any, checked: dict[str, str], tmp_path: Path
) -> None:
    begin = send("GET", "/api/train").json
    assert [(each["name"], each["files"]) for each in begin["data"]] == [("clips/bad", 1), ("clips/games", 1)]
    assert begin["runs"] == []
    answer = send("POST", "/api/train", {"data": checked["games"], "minutes": 20, "clip": "suggested"}).json
    job = store.job(answer["job"]) or {}
    assert job["request"] == {
        "kind": "train", "learns": "videos", "run": "games", "data": checked["games"], "sets": FOUND["sets"],
        "minutes": 20,
    }  # fmt: skip
    assert (job["steps"], answer["run"]) == (1200, run_id("games"))
    # The name of a run that waits is taken too.
    second = send("POST", "/api/train", {"data": checked["games"], "minutes": 1.5, "clip": "clips"}).json
    job = store.job(second["job"]) or {}
    assert (job["request"]["run"], job["request"]["sets"], job["steps"]) == ("games-2", {}, 90)
    shapes = send("POST", "/api/train", {"data": "shapes", "minutes": 5}).json
    assert (store.job(shapes["job"]) or {})["request"]["data"] is None
    arena = send("POST", "/api/train", {"learns": "world", "data": "arena", "minutes": 5}).json
    request = (store.job(arena["job"]) or {})["request"]
    assert (request["learns"], request["run"], request["data"]) == ("world", "arena", None)
    store.cancel(arena["job"])
    rows = send("GET", "/api/train").json["runs"]
    assert [(row["name"], row["state"], row["goes_on"]) for row in rows] == [
        ("shapes", "queued", False), ("games-2", "queued", False), ("games", "queued", False),
    ]  # fmt: skip
    # What the doctor said stays with the run.
    assert send("GET", f"/api/runs/{run_id('games')}/report").json["clip"] == "suggested"
    assert send("GET", f"/api/runs/{run_id('shapes')}/report").status == 404
    # A page is told names, never where something lies.
    for path in ("/api/train", f"/api/runs/{run_id('games')}", "/api/state"):
        assert str(tmp_path) not in send("GET", path).body.decode()
    # One that was stopped before it began leaves nothing.
    for each in (answer, second, shapes):
        store.cancel(each["job"])
    assert send("GET", "/api/train").json["runs"] == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"data": "../../etc"}, "there is no such folder of clips here: load the page again"),
        ({"data": "/etc"}, "there is no such folder of clips here: load the page again"),
        ({"data": "0" * 12}, "there is no such folder of clips here: load the page again"),
        ({"minutes": 0}, "minutes = 0 must be at least 1 and at most 10080"),
        ({"minutes": 10**400}, "must be at least 1 and at most 10080"),
        ({"minutes": float("nan")}, "minutes = nan must be at least 1 and at most 10080"),
        ({"minutes": True}, "'minutes' has a value of the wrong type"),
        ({"run": "../x"}, "unknown key 'run': use learns, data, minutes, clip"),
        ({"out": "/tmp/x"}, "unknown key 'out': use learns, data, minutes, clip"),
        ({"sets": {"data.path": "/etc"}}, "unknown key 'sets': use learns, data, minutes, clip"),
        ({"learns": "all"}, "learns must be videos or world"),
        ({"learns": "world", "data": "shapes"}, "there is no such folder of clips here: load the page again"),
        ({"data": "arena"}, "there is no such folder of clips here: load the page again"),
        ({"data": "bad"}, "nothing in the folder is usable as it is: the doctor's report says why"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_line(
    store: JobStore, send: Any, checked: dict[str, str], change: dict[str, Any], error: str
) -> None:
    wanted: dict[str, Any] = {"data": checked["games"], "minutes": 20, "clip": "suggested", **change}
    wanted["data"] = checked.get(wanted["data"], wanted["data"])
    answer = send("POST", "/api/train", wanted)
    assert answer.status == 400
    assert answer.json["error"].endswith(error)
    assert store.open_jobs() == []


def test_a_full_disk_begins_no_training(send: Any, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_pages, "LEAST_FREE", 10**18)
    answer = send("POST", "/api/train", {"data": "shapes", "minutes": 5})
    assert answer.status == 400
    assert "of the disk are free" in answer.json["error"]
    assert store.open_jobs() == []


def test_a_suggested_clip_needs_a_doctor(send: Any, folders: Folders) -> None:
    (id_,) = [each.id for each in folders.data_folders() if "games" in each.name]
    answer = send("POST", "/api/train", {"data": id_, "minutes": 5, "clip": "suggested"})
    assert answer.json["error"] == "let the doctor look at the folder first: it suggests the clip"


def test_runs_that_others_left_are_found_and_go_on(store: JobStore, folders: Folders, send: Any) -> None:
    make_run(folders, "mine")
    make_run(folders, "world", stages=("vae", "actions", "dynamics"))
    make_run(folders, "codes", stages=("vae", "actions"))
    (make_run(folders, "done") / "model").mkdir()
    (folders.run("done") / "model" / "model_index.json").write_text("{}")
    make_run(folders, "busy", old=1.0)
    (folders.runs / "no run").mkdir()
    rows = {row["name"]: row for row in send("GET", "/api/train").json["runs"]}
    assert {name: (row["state"], row["goes_on"]) for name, row in rows.items()} == {
        "mine": ("stopped", True), "world": ("stopped", True), "codes": ("stopped", False), "done": ("done", False),
        "busy": ("elsewhere", True),
    }  # fmt: skip
    assert {name: row["learns"] for name, row in rows.items() if row["learns"] != "videos"} == {
        "world": "world"
    }
    assert (rows["mine"]["spent"], rows["mine"]["seconds"]) == (61.5, 300)
    assert (rows["mine"]["stage"], rows["mine"]["step"], rows["mine"]["steps"]) == ("vae", 1000, 1200)
    for name in ("codes", "done", "busy"):
        assert send("POST", f"/api/runs/{run_id(name)}/resume", {}).status == 400
    refused = send("POST", f"/api/runs/{run_id('mine')}/resume", {"minutes": 90})
    assert refused.json["error"] == "this run has its plan: it goes on by that"
    answer = send("POST", f"/api/runs/{run_id('mine')}/resume", {}).json
    world = send("POST", f"/api/runs/{run_id('world')}/resume", {}).json
    for job, run, learns in ((answer, "mine", "videos"), (world, "world", "world")):
        assert (store.job(job["job"]) or {})["request"] == {
            "kind": "train", "learns": learns, "run": run, "data": None, "sets": {}, "minutes": 5,
        }  # fmt: skip
    # Once.
    assert send("POST", f"/api/runs/{run_id('mine')}/resume", {}).status == 400
    # Videos can be made by what is done, and by nothing else.
    assert (
        send("POST", f"/api/runs/{run_id('busy')}/use", {})
        .json["error"]
        .startswith("this run has no model yet")
    )
    used = send("POST", f"/api/runs/{run_id('done')}/use", {}).json["job"]
    assert (store.job(used) or {})["request"] == {"kind": "use", "run": "done"}
    assert send("GET", f"/api/runs/{run_id('done')}").json["offered"] is None
    for wrong in ("0" * 12, "mine", "../mine", "..%2fmine", run_id("no run") + "x"):
        assert send("POST", f"/api/runs/{wrong}/resume", {}).status == 404


def test_a_run_that_is_asked_for_twice_at_once_goes_on_once(
    store: JobStore, folders: Folders, app: Any
) -> None:
    """As by a double click: both look at the disk before either is queued."""
    make_run(folders, "mine")
    pages = next(r for r in app.routes if r.path.endswith("/resume")).endpoint.__self__
    scope = {"type": "http", "method": "POST", "headers": [], "path_params": {"id": run_id("mine")}}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def twice() -> list[Any]:
        both = [pages.resume(Request(scope, receive)) for _ in range(2)]
        return await asyncio.gather(*both, return_exceptions=True)

    answer, refused = asyncio.run(twice())
    assert answer.status_code == 200
    assert "waits already" in str(refused)
    assert len(store.open_jobs()) == 1


def test_a_world_that_was_stopped_while_clips_were_recorded_goes_on(
    store: JobStore, folders: Folders, send: Any
) -> None:
    first = send("POST", "/api/train", {"learns": "world", "data": "arena", "minutes": 5}).json
    store.take()
    (folders.run("arena") / "recording" / "clips").mkdir(parents=True)
    store.end(first["job"], None)
    (row,) = send("GET", "/api/train").json["runs"]
    assert (row["name"], row["state"], row["goes_on"], row["learns"]) == ("arena", "stopped", True, "world")
    again = send("POST", f"/api/runs/{row['id']}/resume", {}).json["job"]
    assert (store.job(again) or {})["request"] == (store.job(first["job"]) or {})["request"]


def test_a_world_that_was_stopped_while_its_codes_were_named_goes_on(
    store: JobStore, folders: Folders, send: Any
) -> None:
    first = send("POST", "/api/train", {"learns": "world", "data": "arena", "minutes": 5}).json
    store.take()
    run = folders.run("arena")
    for place in ("recording/clips", "recording/truth", "world"):
        (run / place).mkdir(parents=True)
    (run / "world" / "world.json").write_text("{}")
    store.end(first["job"], None)
    (row,) = send("GET", "/api/train").json["runs"]
    assert (row["state"], row["goes_on"]) == ("stopped", True)
    (run / "world" / "names.json").write_text("{}")
    (row,) = send("GET", "/api/train").json["runs"]
    assert (row["state"], row["goes_on"]) == ("done", False)


def test_what_failed_before_its_plan_is_tried_again_with_other_minutes(store: JobStore, send: Any) -> None:
    first = send("POST", "/api/train", {"data": "shapes", "minutes": 1}).json
    store.take()
    store.end(first["job"], "1 minutes are too few on this machine: give --minutes 11")
    (row,) = send("GET", "/api/train").json["runs"]
    assert (row["state"], row["goes_on"]) == ("failed", True)
    assert "too few" in row["error"]
    again = send("POST", f"/api/runs/{row['id']}/resume", {"minutes": 11}).json
    job = store.job(again["job"]) or {}
    assert (job["request"]["run"], job["request"]["minutes"], job["steps"]) == ("shapes", 11, 660)


def test_a_run_is_shown(folders: Folders, send: Any) -> None:
    make_run(
        folders, "mine", expected_loss=0.4, dit={"width": 128, "depth": "<b>", "heads": 4}, device="a machine"
    )
    found = send("GET", f"/api/runs/{run_id('mine')}").json
    assert len(found["curves"]["vae"]["loss"]) <= POINTS
    assert found["curves"]["vae"]["loss"][0] == [5.0, pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)]
    assert found["plan"]["size"] == {"width": 128, "heads": 4}
    assert (found["plan"]["minutes"], found["device"]) == (5, "a machine")
    # A clip whose file is not there is not shown.
    assert [clip["caption"] for clip in found["shown"]["samples"]["clips"]] == ["<b>red</b>"]
    video = send("GET", f"/runs/{run_id('mine')}/samples/0.mp4")
    assert (video.status, video.headers["content-type"]) == (200, "video/mp4")
    for wrong in ("samples/1.mp4", "samples/99999999999999999999.mp4", "page/0.mp4", "../../0.mp4", "samples/-1.mp4",
                  "..%2f..%2fsamples/0.mp4", "samples/0.json"):  # fmt: skip
        assert send("GET", f"/runs/{run_id('mine')}/{wrong}").status == 404


def test_the_page_of_a_run_is_in_a_sandbox(
    folders: Folders, app: Any, send: Any, ask: Any, tmp_path: Path
) -> None:
    """Whoever wrote it: of no origin, without network, forms or cookies, and no script but the one that plays."""
    import base64
    import hashlib

    from minisora.demo.page_pieces import video_script

    run = make_run(folders, "mine")
    token = new_token()
    headers = [("host", "127.0.0.1:8420"), ("authorization", f"Bearer {token}")]
    answer = ask(Guard(app, token), "GET", f"/runs/{run_id('mine')}/page", headers)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["sandbox"] == "allow-scripts"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert "connect-src" not in policy
    # The script that pages of runs have, and no other.
    script = video_script()["script"]
    assert (
        policy["script-src"]
        == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    )
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["content-security-policy"] == sandbox()
    # It cannot renew itself from there: the line that would is left out.
    assert answer.body.decode() == "<p>\n</p>mine"
    # A link that leads out of the run is no page of it.
    (run / "index.html").unlink()
    (run / "index.html").symlink_to(tmp_path / "outside" / "index.html")
    assert send("GET", f"/runs/{run_id('mine')}/page").status == 404
    (folders.runs / "link").symlink_to(tmp_path / "outside")
    for wrong in (run_id("link"), run_id("../outside"), "..", "%2e%2e", "0" * 12):
        assert send("GET", f"/runs/{wrong}/page").status == 404


def test_whatever_lies_in_a_run_is_read_or_left_out(folders: Folders, store: JobStore) -> None:
    run = make_run(folders, "mine")
    damaged = {
        "metrics.jsonl": '{"stage": 3, "step": 1}\n{"stage": "vae", "step": "x", "loss": 1}\n'
        '{"stage": "vae", "step": 1, "loss": NaN, "val_loss": "high", "psnr": true}\nnot json\n'
        '{"stage": "dit", "step": 2, "loss": 0.5}\n[1]\n',
        "plan.json": '{"minutes": "5", "stages": []}',
        "page/shown.json": '{"samples": {"clips": [3, {"caption": 5, "psnr": "x"}]}, "reconstructions": 7}',
    }  # fmt: skip
    for name, text in damaged.items():
        (run / name).write_text(text)
    found = run_facts(folders, store.home, "mine", None)
    assert found["curves"] == {"dit": {"loss": [[2.0, 0.5]]}}
    assert (found["plan"], found["goes_on"]) == (None, False)
    assert [clip["caption"] for clip in found["shown"]["samples"]["clips"]] == [""]
    json.dumps(found, allow_nan=False)
    # What is no time that a training takes hides no other run.
    for plan in ('{"minutes": 5, "taken": NaN, "stages": {}}', '{"minutes": 1e308, "stages": {}}',
                 '{"minutes": 1' + "0" * 400 + ', "taken": 1' + "0" * 400 + ', "stages": {}}'):  # fmt: skip
        (run / "plan.json").write_text(plan)
        json.dumps(run_facts(folders, store.home, "mine", None), allow_nan=False)
    for name in damaged:
        (run / name).write_bytes(b"\xff\xfe{[[[[")
    assert run_facts(folders, store.home, "mine", None)["curves"] == {}
    assert curves(folders.run("nowhere")) == {}


TELLS = """
import json, os, sys, time
print(json.dumps({"done": 1, "total": 2}), flush=True)
if "slow" in sys.argv[1]: time.sleep(60)
if "noise" in sys.argv[1]: print("a library says so", flush=True)
elif "silent" not in sys.argv[1]: print(json.dumps({"found": {"clips": sys.argv[1]}}), flush=True)
"""


def test_the_doctor_makes_one_visit_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_checks, "COMMAND", (sys.executable, "-c", TELLS))
    for name in ("good", "slow", "noise", "silent"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_text("x")
    by_name = {
        each.name.rpartition("/")[2]: each for each in Folders([tmp_path], tmp_path / "runs").data_folders()
    }

    async def script() -> None:
        checks = folder_checks.FolderChecks()

        async def until(name: str, state: str) -> dict[str, Any]:
            for _ in range(1000):
                found = checks.state(by_name[name].id, "videos")
                if found["state"] == state and (state != "running" or found["done"]):
                    return found
                await asyncio.sleep(0.02)
            raise AssertionError(found)

        await checks.begin(by_name["slow"], "videos")
        await until("slow", "running")
        process = checks._process
        await checks.begin(by_name["good"], "videos")
        assert process is not None
        assert await asyncio.wait_for(process.wait(), 60) == -9
        assert checks.state(by_name["slow"].id, "videos") == {"state": "none"}
        assert (await until("good", "done"))["clips"] == str(tmp_path / "good")
        # What is usable for videos need not be so for a world.
        assert checks.state(by_name["good"].id, "world") == {"state": "none"}
        for name in ("noise", "silent"):
            await checks.begin(by_name[name], "videos")
            assert "without a word" in (await until(name, "failed"))["error"]
        await checks.begin(by_name["slow"], "videos")
        await until("slow", "running")
        await checks.end()
        assert checks.state(by_name["slow"].id, "videos") == {"state": "none"}

    asyncio.run(script())


def test_the_doctor_says_what_data_check_says(tmp_path: Path, write_noise: Any) -> None:
    from minisora.studio.doctor_check import look, settings

    clips = tmp_path / "clips"
    clips.mkdir()
    for seed in range(3):
        write_noise(clips / f"{seed}.mp4", seed)
        (clips / f"{seed}.txt").write_text("noise")
    (clips / "bad.mp4").write_text("no video")
    told: list[tuple[int, int]] = []
    found = look(clips, "videos", lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
    # Of six frames each: too short for the usual clip, so a shorter one is suggested.
    assert (found["clips"]["files"], found["clips"]["num_dropped"]) == (4, 1)
    assert found["clips"]["dropped"][0].startswith("bad.mp4: ")
    assert "last frame repeated" in found["clips"]["words"]
    assert found["suggested"]["clip"]["frames"] == found["sets"]["clip.frames"] == 5
    assert found["suggested"]["usable"] == 3
    assert "last frame repeated" not in found["suggested"]["words"]
    json.dumps(found, allow_nan=False)
    assert settings("clip:\n  fps: 8\ndata:\n  buckets:\n    - {frames: 9, share: 0.5}\n") == {
        "clip.fps": 8, "data.buckets": [{"frames": 9, "share": 0.5}],
    }  # fmt: skip
    with pytest.raises(UserError):
        look(tmp_path / "nowhere", "videos", None)
    # A world is learned from frames of one size, and from no single pictures.
    found = look(clips, "world", lambda done, total: None)
    assert (found["clips"]["clip"]["frames"], found["suggested"]["clip"]["frames"]) == (32, 6)
    assert not [key for key in found["sets"] if key.startswith("data.buckets")]


def test_behind_the_guard_nothing_of_it_is_open(
    app: Any, store: JobStore, folders: Folders, ask: Any
) -> None:
    make_run(folders, "mine")
    token = new_token()
    guarded = Guard(app, token)
    host, bearer = ("host", "127.0.0.1:8420"), ("authorization", f"Bearer {token}")
    id_ = run_id("mine")
    paths = ["/api/train", "/api/data/0/check", f"/api/runs/{id_}", f"/api/runs/{id_}/resume",
             f"/api/runs/{id_}/report", f"/runs/{id_}/page", f"/runs/{id_}/samples/0.mp4"]  # fmt: skip
    for path in paths:
        assert ask(guarded, "GET", path, [host]).status == 401
        assert ask(guarded, "GET", path, [("host", "evil.example"), bearer]).status == 403
        for method in ("POST", "DELETE"):
            foreign = [host, bearer, ("origin", "http://evil.example"), ("content-type", "application/json")]
            assert ask(guarded, method, path, [*foreign, ("content-length", "2")], b"{}").status == 403
            plain = [host, bearer, ("origin", "http://127.0.0.1:8420"), ("content-type", "text/plain")]
            assert ask(guarded, method, path, [*plain, ("content-length", "2")], b"{}").status == 415
    assert store.open_jobs() == []
