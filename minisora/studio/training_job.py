"""A training as a job of the queue: its commands in processes of their own, watched, stopped and taken up again.

What a person asked for is the job's request:

    {"kind": "train", "learns": "videos", "run": name, "data": id or null, "sets": {...}, "minutes": 20}

Videos are learned by `minisora train`, a "world" that is played by `minisora world train`. Without data these are the
shapes world and the arena; clips of the arena are recorded first, and name the codes of its world at the end.

Of {"kind": "use", "run": name} only what comes after a training is done: its model is offered where videos are made.

The run's folder says the rest: where it has a config.yaml, the command goes on by that. So a run that was stopped, by a
person or by the end of the studio, is asked for again by the same request.

HOME/trainings/NAME.log    what the command said, the last of it
              /NAME.json   what the doctor said of the clips
RUNS/.NAME.lock            held while it trains, by whichever studio
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minisora.errors import UserError
from minisora.files import read_object
from minisora.run_metrics import number
from minisora.studio.folders import Folders
from minisora.studio.job_store import JobStore
from minisora.studio.tied_command import why_it_ended

TRAIN, USE = "train", "use"
# What is learned; requests of before there were worlds say nothing.
VIDEOS, WORLD = "videos", "world"
# Of the arena, in a folder of the run: as many clips as configs/world_short.yaml was made for.
RECORDING, NUM_CLIPS = "recording", 2400
# From so many minutes on a world has the size of configs/world.yaml, below it that of world_short.yaml.
_LONG = 40
# What precedes the lock and the words of the command.
COMMAND = (sys.executable, "-m", "minisora.studio.tied_command")
# Seconds between looks, between two words on how far it is, and until what does not stop is ended.
_LOOK, _TELL, _PATIENCE = 0.1, 1.0, 120.0
# Bytes of a log that are read, at its end; and the most that one has: of a longer one the later half is kept.
_TAIL, _MOST_LOG = 20_000, 2_000_000


class Stopped(Exception):
    """The training was asked to stop, and has."""


def training_file(home: Path, run: str, suffix: str) -> Path:
    """A file of the studio about a run: .log, .json."""
    return home / "trainings" / f"{run}{suffix}"


def learns_world(request: Mapping[str, Any]) -> bool:
    """Whether a training learns a world."""
    return request.get("learns") == WORLD


def commands_of(request: Mapping[str, Any], folders: Folders) -> Iterator[list[str]]:
    """The commands of a training, each as typed after `minisora`; the next is known when the one before is done.

    Raises:
        UserError: what it learns from is not there.
    """
    run = folders.run(request["run"])
    begun = (run / "config.yaml").is_file()
    words = ["--out", str(run), "--minutes", f"{request['minutes']:g}"]
    data = []
    if begun:
        data = ["--config", str(run / "config.yaml")]
    elif request["data"] is not None:
        data = ["--data", str(folders.data_folder(request["data"]).path)]
    for key, value in {} if begun else request["sets"].items():
        data += ["--set", f"{key}={json.dumps(value)}"]
    if not learns_world(request):
        yield ["train", *words, *(data or ["--config", "toy"])]
        return
    recording, world = run / RECORDING, run / "world"
    if not data:
        yield ["world", "record", "arena", "--clips", str(NUM_CLIPS), "--out", str(recording)]
        data = ["--data", str(recording / "clips")]
    if not begun:
        data = ["--config", "world" if request["minutes"] >= _LONG else "world_short", *data]
    yield ["world", "train", *words, *data]
    if (recording / "truth").is_dir() and not (world / "names.json").is_file():
        yield ["world", "name", "--world", str(world), "--recording", str(recording)]


def train(store: JobStore, job: int, request: Mapping[str, Any]) -> None:
    """Train until all is learned; what becomes of the job then is the worker's.

    Args:
        store: of the job.
        job: its number.
        request: what was asked for.

    Raises:
        Stopped: a person stopped it; what it learned is saved.
        UserError: it failed; the message is its own.
    """
    folders = Folders.of(store.home)
    run = folders.run(request["run"])
    log = training_file(store.home, request["run"], ".log")
    log.parent.mkdir(exist_ok=True)
    for words in commands_of(request, folders):
        command = [*COMMAND, str(run.with_name(f".{run.name}.lock")), *words]
        with log.open("ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )
        stopping, cut = _watch(store, job, process, run, 60 * request["minutes"], log)
        if process.returncode != 0:
            if stopping:
                raise Stopped
            raise UserError(_why(log, max(0, begin - cut), process.returncode))


def _watch(
    store: JobStore, job: int, process: "subprocess.Popen[bytes]", run: Path, seconds: float, log: Path
) -> tuple[bool, int]:
    """Tell how far a process is until it ends, and stop it when that is asked for.

    Returns:
        Whether it was, and the bytes that its log was shortened by meanwhile.
    """
    begin, before = time.monotonic(), spent_before(run)
    told, asked, cut = 0.0, 0.0, 0
    while process.poll() is None:
        now = time.monotonic()
        if not asked and store.is_cancelled(job):
            asked = now
            process.send_signal(signal.SIGTERM)
        elif asked and now - asked > _PATIENCE:
            process.kill()
        if now - told >= _TELL:
            told = now
            store.tell_step(job, min(int(before + now - begin), int(seconds)))
            cut += _shorten(log)
        time.sleep(_LOOK)
    if process.stdin is not None:
        process.stdin.close()
    return asked > 0, cut


def _shorten(log: Path) -> int:
    """Keep the later half of a log that has grown too long; the bytes that went. What is said just then may go too."""
    try:
        with log.open("r+b") as file:
            end = file.seek(0, 2)
            if end <= _MOST_LOG:
                return 0
            file.seek(end - _MOST_LOG // 2)
            kept = file.read()
            file.seek(0)
            file.write(kept)
            file.truncate()
            return end - len(kept)
    except OSError:
        return 0


def spent_before(run: Path) -> float:
    """Seconds that earlier commands have worked on a run."""
    return number(read_object(run / "plan.json").get("taken")) or 0.0


def log_tail(log: Path, begin: int = 0, most: int = _TAIL) -> str:
    """The end of a log, from a place on; empty where there is none."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(begin, end - most))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _why(log: Path, begin: int, code: int) -> str:
    """Why a training failed, in the line that it ended with."""
    if code < 0:
        return (
            f"it was ended by signal {-code}, perhaps for want of memory: go on takes up its last checkpoint"
        )
    return why_it_ended(log_tail(log, begin)) or f"it ended with code {code} and no word"
