"""The command line in processes that are killed, starved or cut short, and the small world that they work in.

Every command is a process of its own, forked from one that has imported the package already: a start then takes
20 ms and not 10 s, and what is killed or starved is the command's work and not Python's imports.
"""

import atexit
import hashlib
import importlib
import json
import os
import pkgutil
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minisora
from minisora.cli import main as minisora_main

# What takes longer hangs: alone on a core no command here takes 10 s.
TIMEOUT_S = 60.0
MIB = 2**20
# Beyond the imports: no malformed number may take the machine down.
_GUARD = 6 * 1024 * MIB

TINY = """
clip: {frames: 9, height: 32, width: 32}
data: {num_clips: 24, num_validation_clips: 4}
vae: {widths: [16, 32], blocks_per_level: 1, latent_channels: 4}
dit: {width: 48, depth: 2, heads: 2}
text: {width: 32, depth: 1, heads: 2}
train_vae: {steps: 12, batch_size: 4, crop: [5, 16, 16], warmup_steps: 2, save_every: 3, validate_every: 6,
  log_every: 1}
train_dit: {steps: 12, batch_size: 4, warmup_steps: 2, save_every: 3, validate_every: 6, log_every: 1,
  sample_every: 6}
train_caption: {steps: 12, batch_size: 4, warmup_steps: 2, save_every: 3, validate_every: 6, log_every: 1,
  views_in_all: 48}
flow: {known_share: 0.3}
sample: {steps: 4}
"""

# Two tiny runs that share a VAE, of ten steps and more.
LADDER = """
config: tiny.yaml
set: [train_vae.steps=6, train_dit.sample_every=0, data.num_validation_clips=8]
base_flops: 2.0e9
budgets:
  - {times: 1, dials: [2, 3]}
shown: [1]
prompts: prompts.txt
"""

PROMPT = "a small red circle moving right"


@dataclass(frozen=True)
class Stage:
    """A command of the campaign, and where what it reads comes from: "STAGE/PATH" of stages before it."""

    name: str
    line: str
    needs: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        return tuple(shlex.split(self.line))


STAGES = (
    Stage("make", "data make clips --clips 40 -c tiny.yaml"),
    Stage("vae", "train vae -c tiny.yaml --data clips -o run", ("make/clips",)),
    Stage("encode", "train dit -c tiny.yaml -o run -s data.num_clips=700 -s train_dit.steps=2", ("vae/run",)),
    Stage("dit", "train dit -c tiny.yaml --data clips -o run", ("make/clips", "vae/run")),
    Stage(
        "distill",
        "distill --run run -o student --samples 300 --steps 2 -s train_dit.steps=12",
        ("make/clips", "dit/run"),
    ),
    Stage("caption", "caption train --run run", ("make/clips", "dit/run")),
    Stage("ladder", "scale run --ladder ladder.yaml -o ladder"),
    Stage("export", "export -m run/model -o small", ("dit/run",)),
    Stage("sample", f"sample -m run/model -p '{PROMPT}' -p '{PROMPT}' --steps 8 -o out/s.mp4", ("dit/run",)),
    Stage(
        "augment",
        "augment -m run/model -d clips -p {caption} -o more --steps 2",
        ("make/clips", "dit/run"),
    ),
    Stage("evaluate", "evaluate prompts -m run/model --prompts prompts.txt -o judged", ("dit/run",)),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: exit code; -N: by signal N.
        late: whether it was stopped because it took too long.
    """

    code: int
    seconds: float
    out: str
    err: str
    late: bool

    def last_line(self) -> str:
        lines = [line for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


def preload() -> None:
    """Import all that a command may, so that its processes need not; nothing here may start a thread."""
    for module in pkgutil.walk_packages(minisora.__path__, "minisora."):
        if module.name != "minisora.__main__":
            importlib.import_module(module.name)
    for name in ("einops._torch_specific", "PIL.GifImagePlugin", "PIL.PngImagePlugin", "PIL.JpegImagePlugin"):
        importlib.import_module(name)


def run(
    argv: Sequence[str],
    place: Path,
    *,
    kill_after: float | None = None,
    memory: int | None = None,
    timeout: float = TIMEOUT_S,
) -> Ended:
    """A command in a folder.

    Args:
        argv: without the program's name.
        place: working folder; what the command says is kept beside it.
        kill_after: seconds until it and all that it started gets SIGKILL.
        memory: bytes that it may take beyond what it has at its start.
        timeout: seconds until it is taken to hang.
    """
    logs = [place.with_name(f"{place.name}.{name}") for name in ("stdout", "stderr")]
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(argv, place, logs, memory)
    limit = timeout if kill_after is None else min(kill_after, timeout)
    stopped = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start >= limit:
            stopped = True
            _kill_group(child)
            # It may have had no time to make its group.
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    # Whatever it left running.
    _kill_group(child)
    out, err = (log.read_text(errors="replace") if log.is_file() else "" for log in logs)
    for log in logs:
        log.unlink(missing_ok=True)
    late = stopped and kill_after is None
    return Ended(os.waitstatus_to_exitcode(status), time.monotonic() - start, out, err, late)


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def _become(argv: Sequence[str], place: Path, logs: Sequence[Path], memory: int | None) -> None:
    """In the forked process: be `minisora ARGV`, to the last exit handler."""
    code = 70
    try:
        os.setsid()
        for log, descriptor in zip(logs, (1, 2), strict=True):
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, descriptor)
            os.close(file)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(place)
        # Those of the benchmark.
        atexit._clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        room = now + (_GUARD if memory is None else memory)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        sys.argv = ["minisora", *argv]
        try:
            minisora_main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
            code = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def fault(ended: Ended) -> str | None:
    """What is wrong with how a command ended: anything but success, or one line and exit code 1 or 2."""
    if ended.late:
        return f"hangs: not done after {ended.seconds:.0f} s"
    if ended.code < 0:
        return f"died of {signal.Signals(-ended.code).name}"
    if "Traceback (most recent call last)" in ended.out + ended.err:
        return "traceback"
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}"
    # A progress bar ends its state with a carriage return; warnings may stand before the error.
    lines = [line.rpartition("\r")[2].strip() for line in ended.err.replace("\r\n", "\n").split("\n")]
    if ended.code == 0:
        return None
    errors = [line for line in lines if line.startswith("error: ")]
    # An option that is none, told by Typer.
    if ended.code == 2 and "Usage: " in ended.err:
        return None
    if ended.code == 2 and len(errors) != 1:
        return f"{len(errors)} error lines"
    if errors and lines.index(errors[0]) < len(lines) - 1 and any(lines[lines.index(errors[0]) + 1 :]):
        return "more lines after the error"
    if ended.code == 1 and not (ended.out + ended.err).strip():
        return "exit code 1 without a word"
    return None


_SPEED = {"samples_per_second", "flops_per_second", "mfu", "seconds", "date", "device"}


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file by relative path; what a clock or the machine's load decides is left out."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        # A ladder writes down what failed, and that is no leftover.
        if file.is_dir() or file.name.endswith(".lock") or file.name == "failures.jsonl":
            continue
        if file.name == "index.html":
            # A page has its hour and the speeds on it; that it is there is what counts.
            digests[str(file.relative_to(folder))] = "page"
            continue
        data = file.read_bytes()
        if file.suffix in (".jsonl", ".json"):
            data = b"\n".join(map(_without_speed, data.splitlines() if file.suffix == ".jsonl" else [data]))
        digests[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return digests


def _without_speed(text: bytes) -> bytes:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if key not in _SPEED}
    return json.dumps(value).encode()


def differences(expected: dict[str, str], actual: dict[str, str]) -> str | None:
    """The first few files that are missing, left over or different, in words."""
    words = [f"{name} is missing" for name in expected if name not in actual]
    words += [f"{name} is left over" for name in actual if name not in expected]
    words += [f"{name} differs" for name in expected if name in actual and expected[name] != actual[name]]
    return "; ".join(words[:3]) + ("; ..." if len(words) > 3 else "") if words else None


class World:
    """Every stage's folder before and after one undisturbed run of it, and how long that took.

    FOLDER/STAGE/before, FOLDER/STAGE/after
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def build(self, names: Sequence[str]) -> None:
        """Run these stages, and those that they need."""
        wanted = set(names)
        for stage in reversed(STAGES):
            if stage.name in wanted:
                wanted |= {need.split("/")[0] for need in stage.needs}
        for stage in STAGES:
            if stage.name in wanted and stage.name not in self.seconds:
                self._run_stage(stage)

    def _run_stage(self, stage: Stage) -> None:
        before, after = self.before(stage.name), self.after(stage.name)
        before.mkdir(parents=True)
        for name, text in (("tiny.yaml", TINY), ("ladder.yaml", LADDER), ("prompts.txt", f"{PROMPT}\n")):
            (before / name).write_text(text)
        for need in stage.needs:
            source, _, name = need.partition("/")
            shutil.copytree(self.after(source) / name, before / name)
        shutil.copytree(before, after)
        ended = run(stage.argv, after)
        if ended.code != 0:
            raise SystemExit(
                f"'{' '.join(stage.argv)}' fails undisturbed: {ended.out[-1000:]}{ended.err[-2000:]}"
            )
        self.seconds[stage.name] = ended.seconds

    def before(self, stage: str) -> Path:
        return self.folder / stage / "before"

    def after(self, stage: str) -> Path:
        return self.folder / stage / "after"


def stage_of(name: str) -> Stage:
    return next(stage for stage in STAGES if stage.name == name)
