"""A training as a job of the queue: `minisora train` in a process of its own, watched, stopped and taken up again.

What a person asked for is the job's request:

    {"kind": "train", "run": name, "data": id or null, "sets": {...}, "minutes": 20}

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minisora.errors import UserError
from minisora.files import read_object
from minisora.run_metrics import number
from minisora.screen import plain
from minisora.studio.folders import Folders
from minisora.studio.job_store import JobStore

TRAIN, USE = "train", "use"
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


def words_of(request: Mapping[str, Any], folders: Folders) -> list[str]:
    """The command of a training, as typed after `minisora`.

    Raises:
        UserError: what it learns from is not there.
    """
    run = folders.run(request["run"])
    words = ["train", "--out", str(run), "--minutes", f"{request['minutes']:g}"]
    if (run / "config.yaml").is_file():
        return [*words, "--config", str(run / "config.yaml")]
    if request["data"] is None:
        words += ["--config", "toy"]
    else:
        words += ["--data", str(folders.data_folder(request["data"]).path)]
    for key, value in request["sets"].items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return words


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
    command = [*COMMAND, str(run.with_name(f".{run.name}.lock")), *words_of(request, folders)]
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
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
    lines = [line.strip() for line in log_tail(log, begin).splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return plain((errors or lines or [f"it ended with code {code} and no word"])[-1])[:1000]
