"""A campaign of faults: what is killed, starved, cut short or fed rubbish ends in one line, and goes on as if unhurt.

    python benchmarks/faults.py --json benchmarks/results/faults_MACHINE_DATE.json  # a few minutes
    python benchmarks/faults.py --quick                                   # half a minute

kill      SIGKILL to the whole process group at random moments of making data, training a VAE, encoding, training a
          DiT, distilling, training a captioner, a ladder, exporting, sampling, augmenting and evaluating, a third of
          the time twice; then the same command: exit code 0, and every file equals that of an undisturbed run, byte
          for byte but for times: no step twice, none lost, nothing left over
disk      a file system that is full on the way: one line, exit code 1 or 2, nothing lost; made larger, the same
          command ends as an undisturbed run
memory    too little memory beyond the imports: the same
mutate    malformed configs, overrides, tables, videos, images, checkpoints, model folders, results, prompts and
          numbers: exit code 0, or 1 or 2 with one line; no traceback, no hang, nothing that was there is changed;
          a damaged run that is resumed ends in the undamaged one's numbers or is refused

Disks are made full in a mount namespace of this program's own, which Linux gives to root, and to everyone where user
namespaces are allowed; elsewhere that part is skipped and told.
"""

import argparse
import os

# Before torch: a forked process has no use for its parent's threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "200"

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fault_inputs import make_media
from fault_process import STAGES, World, preload
from fault_trials import families, summary, trial
from interleave import facts, write
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

PARTS = ("kill", "disk", "memory", "mutate")
_OF_MEMORY = ("vae", "encode", "dit", "distill", "caption", "sample", "evaluate", "make", "export", "augment")
# Set where the program has entered its own mount namespace.
_INSIDE = "MINISORA_FAULTS_NAMESPACE"


def enter_namespace() -> str:
    """Start over in a mount namespace of its own; returns why not where there is none to be had."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "needs Linux with util-linux"
    command = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    probe = subprocess.run(
        [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    if probe.returncode == 0:
        os.environ[_INSIDE] = "1"
        os.execvp(command[0], [*command, sys.executable, *sys.argv])
    return f"no mount namespace here ({' '.join(probe.stderr.split())})"


def plan(arguments: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Part, stage or family, and number of every trial."""
    counts = {part: getattr(arguments, part) for part in PARTS}
    trials = []
    for part in arguments.part or PARTS:
        if part == "mutate":
            shares = families()
            whole = sum(shares.values())
            for name, share in shares.items():
                if arguments.only and name not in arguments.only:
                    continue
                trials += [(part, name, number) for number in range(-(-counts[part] * share // whole))]
            continue
        names = [stage.name for stage in STAGES] if part != "memory" else list(_OF_MEMORY)
        names = [name for name in names if not arguments.only or name in arguments.only]
        trials += [
            (part, names[number % len(names)], number) for number in range(counts[part] if names else 0)
        ]
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (repeatable)")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only this stage or family (repeatable)"
    )
    for part, count in (("kill", 50), ("disk", 20), ("memory", 10), ("mutate", 300)):
        parser.add_argument(f"--{part}", type=int, default=count, help=f"trials (default {count})")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other moments and other rubbish")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="trials side by side")
    parser.add_argument("--quick", action="store_true", help="a few cheap trials of each part")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    parser.add_argument(
        "--rows", action="store_true", help="a row for every trial in OUT, not for failures alone"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.kill, arguments.disk, arguments.memory, arguments.mutate = 4, 2, 2, 20
        arguments.only = ["make", "vae", *families()]
    fills = "disk" in (arguments.part or PARTS) and _INSIDE not in os.environ
    why_no_disk = enter_namespace() if fills else None
    trials = [each for each in plan(arguments) if not (why_no_disk and each[0] == "disk")]
    console = Console(stderr=True)
    if why_no_disk:
        console.print(f"no disk is filled: {why_no_disk}")
    result: dict[str, Any] = {**facts(), "seed": arguments.seed, "commit": _commit()}
    preload()
    start = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        world = World(scratch / "world")
        stages = {name for part, name, _ in trials if part != "mutate"}
        if any(part == "mutate" for part, _, _ in trials):
            stages |= {"make", "dit"}
        world.build(sorted(stages))
        make_media(world.folder / "media")
        rows = _run(world, trials, arguments, scratch, console)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    lines = summary(rows)
    failures = [row for row in rows if row["why"]]
    _print(lines, failures)
    result |= {"minutes": (time.monotonic() - start) / 60, "skipped": why_no_disk, "summary": lines}
    result["failures"] = failures
    if arguments.rows:
        result["rows"] = rows
    if arguments.json:
        write(arguments.json, result)
    sys.exit(1 if failures else 0)


def _run(
    world: World,
    trials: list[tuple[str, str, int]],
    arguments: argparse.Namespace,
    scratch: Path,
    console: Console,
) -> list[dict[str, Any]]:
    """All trials, some side by side; the workers are forked before any thread begins."""
    rows: list[dict[str, Any]] = []
    with (
        ProcessPoolExecutor(arguments.jobs, mp_context=get_context("fork")) as pool,
        Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=console) as progress,
    ):
        bar = progress.add_task("trials", total=len(trials))
        waiting = [pool.submit(trial, world, *each, arguments.seed, scratch) for each in trials]
        for done in as_completed(waiting):
            row = done.result()
            rows.append(row)
            progress.advance(bar)
            if row["why"]:
                line = f"{row['part']} {row['what']} {row['number']} ({row['detail']}): {row['why']} | {row['last']}"
                progress.console.print(line, style="red", markup=False, soft_wrap=True, highlight=False)
    place = {each: number for number, each in enumerate(trials)}
    return sorted(rows, key=lambda row: place[row["part"], row["what"], row["number"]])


def _commit() -> str | None:
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def _print(lines: list[dict[str, Any]], failures: list[dict[str, Any]]) -> None:
    table = Table(
        title=f"{sum(line['tried'] for line in lines)} faults, {len(failures)} failures", title_justify="left"
    )
    for head in ("part", "of", "tried", "right", "failed", "hit"):
        table.add_column(head, justify="left" if head in ("part", "of") else "right")
    for line in lines:
        hit = next((str(line[name]) for name in ("kills", "full", "short", "refused") if name in line), "")
        table.add_row(
            line["part"], line["what"], *(str(line[name]) for name in ("tried", "right", "failed")), hit
        )
    table.caption = "hit: kills that came before the end; full disks, short memory, inputs that were refused"
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
