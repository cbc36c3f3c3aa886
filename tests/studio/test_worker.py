"""The queue and its worker: with an engine without torch, in processes of their own where they are killed."""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minisora.errors import UserError
from minisora.pipelines.recipe import read_recipe
from minisora.studio import run_studio
from minisora.studio.job_store import JobStore
from minisora.studio.worker import work, work_one

KILLS = 5
FAKE = Path(__file__).with_name("fake_engine.py")


def _work_all(store: JobStore, engine: Any) -> None:
    while work_one(store, engine):
        pass


def test_a_video_and_its_recipe_come_out(store: JobStore, asked: Any, fake: ModuleType) -> None:
    (number,) = store.add_jobs([asked(5)], 3)
    _work_all(store, fake.FakeEngine())
    clip = store.clip(number)
    assert clip is not None
    recipe = read_recipe(store.clip_file(number, ".mp4"))
    assert recipe.to_dict() == clip["recipe"]
    assert (recipe.seed, recipe.prompt, recipe.size) == (5, "a red circle moving left", (9, 64, 64))
    assert store.clip_file(number, ".png").is_file()
    assert store.clips(search="circle 5")[0] == 1


def test_it_stops_within_a_step(store: JobStore, asked: Any, fake: ModuleType) -> None:
    first, second = store.add_jobs([asked(0, steps=50), asked(1)], 50)
    steps: list[int] = []

    class Watched(fake.FakeEngine):  # type: ignore[name-defined,misc]
        def make(self, request: Any, parents: Any, video: Path, picture: Path, on_step: Any) -> Any:
            def watched(step: int, png: Callable[[], bytes]) -> None:
                if request["seed"] == 0:
                    steps.append(step)
                    if step == 3:
                        store.cancel(first)
                on_step(step, png)

            return super().make(request, parents, video, picture, watched)

    _work_all(store, Watched())
    # The step at which it was cancelled was its last.
    assert steps == [1, 2, 3]
    assert store.job(first)["state"] == "cancelled"  # type: ignore[index]
    assert store.job(second)["state"] == "done"  # type: ignore[index]
    assert not store.clip_file(first, ".mp4").exists()


def test_a_failure_is_its_line_and_the_next_job_is_made(
    store: JobStore, asked: Any, fake: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(fake.FakeEngine):  # type: ignore[name-defined,misc]
        def make(self, request: Any, *rest: Any) -> Any:
            if request["seed"] == 1:
                raise ValueError("a fault of ours")
            if request["seed"] == 2:
                raise MemoryError
            if request["seed"] == 4:
                raise UserError(os.fsdecode(b"caf\xe9 is damaged"))
            return super().make(request, *rest)

    requests = [asked(0, "fail"), asked(1), asked(2), asked(4), asked(3)]
    numbers = store.add_jobs(requests, 3)
    _work_all(store, Broken())
    jobs = [store.job(number) or {} for number in numbers]
    assert [job["state"] for job in jobs] == ["failed", "failed", "failed", "failed", "done"]
    assert jobs[0]["error"] == "the prompt says <b>fail</b>: say something else"
    assert jobs[1]["error"] == "it failed (ValueError): the terminal of the studio says more"
    assert "memory" in jobs[2]["error"]
    assert jobs[3]["error"] == r"caf\udce9 is damaged"
    assert "a fault of ours" in caplog.text


def test_a_model_that_cannot_be_read_leaves_the_others(store: JobStore, fake: ModuleType) -> None:
    class Half(fake.FakeEngine):  # type: ignore[name-defined,misc]
        names = ["bad", "toy"]  # noqa: RUF012

        def facts(self, name: str) -> Any:
            if name == "bad":
                raise UserError("bad is damaged: copy it again")
            return super().facts(name)

    stop = threading.Event()
    stop.set()
    store.tell_model("of an earlier start", {})
    work(store, Half(), stop)
    models = store.models()
    assert models["bad"] == {"error": "bad is damaged: copy it again"}
    assert set(models) == {"bad", "toy"}
    assert models["toy"]["steps"] == 24


@pytest.mark.slow
def test_killed_at_any_moment_no_video_is_lost_or_made_twice(store: JobStore, asked: Any) -> None:
    """The worker's server is killed (its end of the pipe closes), or the worker itself, at random moments."""
    numbers = store.add_jobs([asked(seed, steps=4) for seed in range(8)], 4)
    rng = random.Random(0)
    command = [sys.executable, str(FAKE), str(store.home), "toy=toy"]
    kills, deadline = 0, time.monotonic() + 120
    while len([n for n in numbers if store.clip(n)]) < len(numbers) and time.monotonic() < deadline:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "FAKE_SECONDS": "0.08"})
        if kills < KILLS:
            before = store.version
            # Only a worker that is at work.
            while store.version < before + 2 and worker.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.25))
            if rng.random() < 0.5:
                worker.kill()
            kills += 1
        else:
            while len([n for n in numbers if store.clip(n)]) < len(numbers) and time.monotonic() < deadline:
                time.sleep(0.05)
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(20)
    assert kills == KILLS
    total, clips = store.clips(limit=100)
    assert total == len(numbers)
    assert [clip["id"] for clip in clips] == sorted(numbers, reverse=True)
    assert sorted(clip["recipe"]["seed"] for clip in clips) == list(range(8))
    assert len(list(store.clips_folder.glob("[0-9]*.mp4"))) == len(numbers)
    assert {job["state"] for number in numbers if (job := store.job(number))} == {"done"}


@pytest.mark.parametrize(("told", "down"), [(["toy"], False), (["toy", "second"], True), ([], True)])
def test_whether_another_worker_is_of_use_shows_what_the_last_one_told(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, told: list[str], down: bool
) -> None:
    """Workers that end at once, on a machine of any speed: those that read no model, or not all, are given up."""
    monkeypatch.setattr(run_studio, "_PAUSE", 0.0)
    names = ["toy"] if told == ["toy"] else ["toy", "second", "third"]
    keeper = run_studio.WorkerKeeper(store, [], names)
    starts = 0

    class Ended:
        stdin = None

        async def wait(self) -> int:
            nonlocal starts
            starts += 1
            for name in told:
                store.tell_model(name, {})
            if starts == 9:
                raise asyncio.CancelledError
            return 1

    async def start(*_: object, **__: object) -> Ended:
        assert store.told() == []
        # Known from the worker before: a job can be asked for.
        assert store.model_names() == (told if starts else [])
        assert keeper.state() == "starting"
        return Ended()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with suppress(asyncio.CancelledError):
        asyncio.run(keeper._keep())
    assert starts == (3 if down else 9)
    assert ("does not start" in keeper.state()) is down
