"""Trainings as jobs: begun, watched, stopped, taken up again, and never begun twice by themselves."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock, Timeout

from minisora.errors import UserError
from minisora.studio import training_job
from minisora.studio.folders import Folders
from minisora.studio.job_store import JobStore
from minisora.studio.own_models import keep_model, own_models, own_names
from minisora.studio.training_job import commands_of, log_tail, spent_before, training_file
from minisora.studio.worker import work, work_one

FAKE = Path(__file__).with_name("fake_engine.py")


@pytest.fixture
def folders(store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Named to a studio whose trainings learn nothing."""
    for name in ("games", "fail"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "a.mp4").write_text("x")
    named = Folders([tmp_path / "clips"], tmp_path / "runs")
    named.keep(store.home)
    fake = (sys.executable, str(FAKE.with_name("fake_trainer.py")))
    monkeypatch.setattr(training_job, "COMMAND", fake)
    return named


@pytest.fixture
def asked_to_train(folders: Folders) -> Callable[..., dict[str, Any]]:
    """Makes a request: (name of the run, name of the data folder)."""

    def asked(run: str = "games", data: str | None = "clips/games") -> dict[str, Any]:
        ids = {each.name: each.id for each in folders.data_folders()}
        return {
            "kind": "train",
            "run": run,
            "data": data and ids[data],
            "sets": {"clip.fps": 15},
            "minutes": 2,
        }

    return asked


def steps_of(run: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["stage"], row["step"]) for row in rows]


WHOLE = [("vae", step) for step in range(1, 41)] + [("dit", step) for step in range(1, 61)]


def test_the_command_is_what_a_person_would_type(folders: Folders, asked_to_train: Any) -> None:
    run = folders.run("games")
    begin = ["train", "--out", str(run), "--minutes", "2"]
    data = ["--data", str(folders.data[0] / "games")]
    assert list(commands_of(asked_to_train(), folders)) == [[*begin, *data, "--set", "clip.fps=15"]]
    shapes = {**asked_to_train(data=None), "sets": {}}
    assert list(commands_of(shapes, folders)) == [[*begin, "--config", "toy"]]
    # What has begun goes on by its own config, wherever the folder of clips is now.
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    own = ["--config", str(run / "config.yaml")]
    assert list(commands_of({**asked_to_train(), "data": "0" * 12}, folders)) == [[*begin, *own]]


def test_a_world_is_learned_by_its_own_commands(folders: Folders, asked_to_train: Any) -> None:
    run = folders.run("games")
    begin = ["world", "train", "--out", str(run), "--minutes", "2"]
    games = {**asked_to_train(), "learns": "world"}
    data = ["--data", str(folders.data[0] / "games"), "--set", "clip.fps=15"]
    assert list(commands_of(games, folders)) == [[*begin, "--config", "world_short", *data]]
    (words,) = commands_of({**games, "minutes": 60}, folders)
    assert words[words.index("--config") + 1] == "world"
    # The arena is recorded first; that its codes are named is known when it was.
    arena = {**games, "data": None, "sets": {}}
    recording = run / "recording"
    commands = commands_of(arena, folders)
    assert next(commands) == ["world", "record", "arena", "--clips", "2400", "--out", str(recording)]
    (recording / "truth").mkdir(parents=True)
    assert next(commands) == [*begin, "--config", "world_short", "--data", str(recording / "clips")]
    (run / "config.yaml").write_text("{}")
    assert next(commands) == ["world", "name", "--world", str(run / "world"), "--recording", str(recording)]
    assert next(commands, None) is None
    # What has begun goes on, and a world that has its names keeps them.
    (run / "world").mkdir()
    (run / "world" / "names.json").write_text("{}")
    assert list(commands_of(arena, folders)) == [[*begin, "--config", str(run / "config.yaml")]]


def test_the_command_line_takes_what_the_studio_says(folders: Folders, asked_to_train: Any) -> None:
    """Its options, and none that it does not have; nothing is run."""
    import typer

    from minisora.cli import app
    from minisora.studio.folders import run_id

    command: Any = typer.main.get_command(app)
    for request in (
        asked_to_train(),
        {**asked_to_train(data=None), "sets": {"data.buckets": [{"frames": 9}]}},
        {**asked_to_train(), "learns": "world"},
    ):
        *_, words = commands_of(request, folders)
        trains = command if "world" not in words else command.commands["world"]
        options = words[words.index("train") + 1 :]
        context = trains.commands["train"].make_context("train", options)
        assert context.params["out"] == folders.run("games")
        assert context.params["minutes"] == 2
        assert context.params["set_"] == [
            f"{key}={json.dumps(value)}" for key, value in request["sets"].items()
        ]
    (folders.run("games") / "recording" / "truth").mkdir(parents=True)
    arena = {**asked_to_train(data=None), "learns": "world"}
    for _, name, *options in list(commands_of(arena, folders)):
        context = command.commands["world"].commands[name].make_context(name, options)
        assert {key: value for key, value in context.params.items() if key in ("clips", "recording")}.items() <= {
            "clips": 2400, "recording": folders.run("games") / "recording"
        }.items()  # fmt: skip
    # The name of a run is no option, whatever it is.
    assert folders.new_run("--config", []) == "config"
    assert not run_id("--config").startswith("-")


def test_a_run_is_trained_and_the_next_video_made(
    store: JobStore,
    folders: Folders,
    asked_to_train: Any,
    asked: Any,
    fake: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_job, "_TELL", 0.05)
    monkeypatch.setenv("FAKE_SECONDS", "0.003")
    (training,) = store.add_jobs([asked_to_train()], 120)
    (video,) = store.add_jobs([asked(1)], 3)
    engine = fake.FakeEngine()
    version = store.version
    assert work_one(store, engine)
    assert store.job(training)["state"] == "done"  # type: ignore[index]
    assert store.job(training)["step"] == 120  # type: ignore[index]
    assert store.version > version + 3
    assert steps_of(folders.run("games")) == WHOLE
    assert "Model is there" in log_tail(training_file(store.home, "games", ".log"))
    # Videos can be made by it at once.
    assert set(store.models()) == {"games"}
    assert engine.names == ["toy", "games"]
    # It made no clip.
    assert store.clips()[0] == 0
    assert work_one(store, engine)
    assert store.job(video)["state"] == "done"  # type: ignore[index]


def test_a_world_is_learned_and_its_codes_named(
    store: JobStore, folders: Folders, asked_to_train: Any, fake: ModuleType
) -> None:
    """Three commands, and no video is offered to be made by it."""
    arena = {**asked_to_train(run="arena", data=None), "learns": "world", "sets": {}}
    (job,) = store.add_jobs([arena], 120)
    assert work_one(store, fake.FakeEngine())
    assert (store.job(job) or {})["state"] == "done"
    run = folders.run("arena")
    assert steps_of(run)[-1] == ("dynamics", 30)
    assert (run / "world" / "names.json").is_file()
    assert store.models() == {}
    said = log_tail(training_file(store.home, "arena", ".log"))
    assert said.startswith("2400 clips of the arena")
    assert said.rstrip().endswith("code 0  noop")


def test_a_stopped_training_goes_on_where_it_was(
    store: JobStore, folders: Folders, asked_to_train: Any, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.02")
    (first,) = store.add_jobs([asked_to_train()], 120)
    run = folders.run("games")
    told = store.tell_step

    def stop_after_some(job: int, step: int, preview: bytes | None = None) -> None:
        told(job, step, preview)
        if (run / "metrics.jsonl").is_file() and len(steps_of(run)) > 5:
            store.cancel(job)

    monkeypatch.setattr(training_job, "_TELL", 0.02)
    monkeypatch.setattr(store, "tell_step", stop_after_some)
    work_one(store, fake.FakeEngine())
    assert (store.job(first) or {})["state"] == "cancelled"
    assert (store.job(first) or {})["error"] is None
    some = steps_of(run)
    assert some == WHOLE[: len(some)]
    assert 5 < len(some) < len(WHOLE)
    assert spent_before(run) > 0
    monkeypatch.setattr(store, "tell_step", told)
    monkeypatch.setenv("FAKE_SECONDS", "0.002")
    again = store.retry(first)
    assert again is not None
    work_one(store, fake.FakeEngine())
    assert (store.job(again) or {})["state"] == "done"
    # No step was lost and none done twice.
    assert steps_of(run) == WHOLE
    assert store.trainings()["games"]["id"] == again


def test_a_training_that_fails_says_why(
    store: JobStore, asked_to_train: Any, folders: Folders, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, gone) = store.add_jobs([asked_to_train("a", "clips/fail"), asked_to_train("b")], 60)
    (folders.data[0] / "games" / "a.mp4").unlink()
    for _ in range(2):
        work_one(store, fake.FakeEngine())
    assert (store.job(first) or {})["error"] == "1 minutes are too few on this machine: give --minutes 11"
    assert "there is no such folder of clips here" in (store.job(gone) or {})["error"]
    # A training that is killed, as by a system without memory.
    monkeypatch.setattr(training_job, "COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    (killed,) = store.add_jobs([asked_to_train("c", None)], 60)
    work_one(store, fake.FakeEngine())
    assert "signal 9" in (store.job(killed) or {})["error"]


def test_the_log_of_a_training_has_an_end(
    store: JobStore, asked_to_train: Any, fake: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is said, the last of it is there, and why it failed is what this command said and none before."""
    monkeypatch.setattr(training_job, "_MOST_LOG", 4000)
    monkeypatch.setattr(training_job, "_TELL", 0.02)
    log = training_file(store.home, "games", ".log")
    log.parent.mkdir()
    log.write_text("error: of a command before\n" + 3900 * "x" + "\nerror: of a command before\n")
    talks = (
        "import time\nfor n in range(40): print('line', n, '.' * 200, flush=True); time.sleep(0.02)\nexit(3)"
    )
    monkeypatch.setattr(training_job, "COMMAND", (sys.executable, "-c", talks))
    (job,) = store.add_jobs([asked_to_train(data=None)], 60)
    work_one(store, fake.FakeEngine())
    error = (store.job(job) or {})["error"]
    assert error.startswith("line 39 ")
    assert len(log.read_bytes()) < 8000
    assert log_tail(log).rstrip().endswith(error)


def test_a_training_that_was_left_behind_has_stopped_and_a_video_is_made_again(
    store: JobStore, asked_to_train: Any, asked: Any
) -> None:
    training, video, waits = store.add_jobs(
        [asked_to_train(), asked(1, '{"kind": "train"}'), asked_to_train("b")], 9
    )
    store.take()
    store.take()
    store.requeue()
    states = [(store.job(job) or {})["state"] for job in (training, video, waits)]
    assert states == ["cancelled", "queued", "queued"]
    assert (store.job(training) or {})["error"] == "the studio ended while it trained"
    # What waits was asked for, and is still wanted.
    assert set(store.trainings()) == {"games", "b"}
    # One whose worker died alone says so.
    while (job := store.take()) is not None and job["id"] != waits:
        store.complete(job["id"])
    store.note_death()
    assert (store.job(waits) or {})[
        "error"
    ] == "the worker died while it trained: free memory, and let it go on"


def test_the_model_of_a_run_is_offered_now_and_at_every_start(
    store: JobStore, folders: Folders, fake: ModuleType
) -> None:
    for name in ("toy", "broken", "none"):
        (folders.run(name) / "model").mkdir(parents=True)
    for name in ("toy", "broken"):
        (folders.run(name) / "model" / "model_index.json").write_text("{}")

    class Engine(fake.FakeEngine):  # type: ignore[name-defined,misc]
        def facts(self, name: str) -> Any:
            if name == "broken":
                raise UserError("broken is damaged: train it again")
            return super().facts(name)

    engine = Engine()
    jobs = store.add_jobs(
        [{"kind": "use", "run": name} for name in ("toy", "toy", "broken", "none", "../x")], 1
    )
    for _ in jobs:
        work_one(store, engine)
    states = [((job := store.job(number) or {})["state"], job["error"]) for number in jobs]
    assert states == [
        ("done", None),
        ("done", None),
        ("failed", "broken is damaged: train it again"),
        ("failed", "none has no model yet: train it to its end"),
        ("failed", "that is no name of a run"),
    ]
    # Beside the shipped model of that name, and once.
    assert list(store.models()) == ["toy 2"]
    assert own_names(store.home) == {"toy": "toy 2", "broken": "broken"}
    assert own_models(store.home)["toy 2"] == folders.run("toy") / "model"
    # The next worker reads it too; what is gone or damaged leaves the others.
    (folders.run("broken") / "model" / "model_index.json").unlink()
    stop = threading.Event()
    stop.set()
    work(store, Engine(), stop)
    assert list(store.models()) == ["toy", "toy 2"]
    # One of its name that a person names at a later start stays what was named.
    assert list(own_models(store.home, ["toy", "toy 2"])) == ["toy 2 2"]
    assert own_names(store.home)["toy"] == "toy 2 2"
    (store.home / "models.json").write_text('{"a": 3, "b": ["../.."], "c": ')
    assert own_models(store.home) == own_names(store.home) == {}


def test_the_model_of_a_run_whose_name_is_not_utf8_is_offered(
    store: JobStore, folders: Folders, fake: ModuleType
) -> None:
    run = os.fsdecode(b"caf\xe9")
    (folders.run(run) / "model").mkdir(parents=True)
    (folders.run(run) / "model" / "model_index.json").write_text("{}")
    (job,) = store.add_jobs([{"kind": "use", "run": run}], 1)
    work_one(store, fake.FakeEngine())
    assert (store.job(job) or {})["state"] == "done"
    assert own_names(store.home) == {run: r"caf\udce9"}
    stop = threading.Event()
    stop.set()
    work(store, fake.FakeEngine(), stop)
    assert list(store.models()) == ["toy", r"caf\udce9"]


def test_a_studio_that_starts_again_says_at_once_what_has_stopped(
    tmp_path: Path, asked_to_train: Any, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")
    from minisora.studio import run_studio

    (training,) = store.add_jobs([asked_to_train()], 120)
    store.take()
    served: list[str] = []
    monkeypatch.setattr(
        run_studio, "run", lambda *_, **__: served.append((store.job(training) or {})["state"])
    )
    run_studio.run_studio(
        ["toy"], store.home, None, 0, print, data=[tmp_path / "clips"], runs=tmp_path / "runs"
    )
    assert served == ["cancelled"]


def test_a_studio_that_starts_again_knows_how_many_models_there_will_be(
    store: JobStore, folders: Folders, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any is read, so that the page makes room for the choice: those that were trained here are among them."""
    pytest.importorskip("starlette", reason="needs starlette: pip install 'minisora[studio]'")
    from minisora.studio import run_studio

    (folders.run("mine") / "model").mkdir(parents=True)
    (folders.run("mine") / "model" / "model_index.json").write_text("{}")
    keep_model(store.home, "mine", ["toy"])
    told: list[Any] = []
    monkeypatch.setattr(
        run_studio, "run", lambda app, *_, **__: told.append(ask(app, "GET", "/api/state").json)
    )
    run_studio.run_studio(["toy"], store.home, None, 0, print, data=folders.data, runs=folders.runs)
    assert [(each["num_models"], each["models"]) for each in told] == [(2, {})]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "server"])
def test_killed_meanwhile_a_run_saves_itself_and_does_not_begin_again(
    store: JobStore, folders: Folders, asked_to_train: Any, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed, or the server, whose end of the worker's pipe then closes."""
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    (training,) = store.add_jobs([asked_to_train()], 120)
    run = folders.run("games")
    command = [sys.executable, str(FAKE), str(store.home), "toy=toy"]

    def until(check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not check():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    worker = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert worker.stdin is not None
    until(lambda: (run / "metrics.jsonl").is_file() and len(steps_of(run)) > 3)
    if who == "worker":
        worker.kill()
    else:
        worker.stdin.close()
    worker.wait(20)
    lock = FileLock(run.with_name(".games.lock"))
    until(lambda: _is_free(lock))
    some = steps_of(run)
    assert spent_before(run) > 0
    # The next worker finds it stopped, and lets it be.
    after = subprocess.Popen(command, stdin=subprocess.PIPE)
    until(lambda: (store.job(training) or {})["state"] == "cancelled")
    until(lambda: bool(store.models()))
    assert after.stdin is not None
    after.stdin.close()
    after.wait(20)
    assert steps_of(run) == some
    assert some == WHOLE[: len(some)]


def _is_free(lock: FileLock) -> bool:
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


@pytest.mark.slow
def test_a_command_is_tied_to_who_started_it(tmp_path: Path) -> None:
    """What waits for its input is asked to stop when that closes; what ends before ends well."""
    waits = "import time; from minisora.studio.tied_command import stop_with_starter; stop_with_starter();"
    process = subprocess.Popen([sys.executable, "-c", f"{waits} time.sleep(60)"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == -15
    tied = [sys.executable, "-m", "minisora.studio.tied_command", str(tmp_path / "deep" / "a.lock")]
    # With its input open until after it has ended.
    process = subprocess.Popen(
        [*tied, "data", "check", str(tmp_path / "nowhere")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    error = process.stderr.read()
    assert process.wait(60) == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
