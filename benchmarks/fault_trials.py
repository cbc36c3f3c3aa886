"""One trial of `faults.py` each: a command that is killed, runs out of disk or memory, or reads rubbish."""

import random
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fault_inputs import FAMILIES, bring
from fault_process import MIB, World, contents, differences, fault, run, stage_of

Row = dict[str, Any]


def trial(world: World, part: str, what: str, number: int, seed: int, scratch: Path) -> Row:
    """One trial; the same numbers give the same trial.

    Returns:
        part, what (a stage or a family of inputs), number, detail, "why" it failed or None, "code" and "last" line.
    """
    rng = random.Random(f"{seed} {part} {what} {number}")
    place = scratch / f"{part}-{what}-{number}"
    try:
        row = {"kill": _kill, "disk": _disk, "memory": _memory, "mutate": _mutate}[part](
            world, what, rng, place
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {"part": part, "what": what, "number": number, **row}


def _kill(world: World, name: str, rng: random.Random, place: Path) -> Row:
    """SIGKILL, a third of the time twice, then the same command: as if nothing had happened."""
    stage = stage_of(name)
    shutil.copytree(world.before(name), place)
    moments = [rng.random() for _ in range(rng.choice((1, 1, 2)))]
    hit = 0
    for moment in moments:
        hit += run(stage.argv, place, kill_after=moment * world.seconds[name]).code == -9
    row = {"detail": " ".join(f"{moment:.3f}" for moment in moments), "kills": hit}
    return {**row, **_again(world, name, place)}


def _again(world: World, name: str, place: Path) -> Row:
    """The same command once more, undisturbed: it must end in what one undisturbed run gives."""
    ended = run(stage_of(name).argv, place)
    why = fault(ended) or (f"exit code {ended.code}" if ended.code else None)
    if why is None:
        why = differences(contents(world.after(name)), contents(place))
    return {"why": why and f"the same command again: {why}", "code": ended.code, "last": ended.last_line()}


def _refused(world: World, name: str, place: Path, ended: Any) -> str | None:
    """What is wrong after a command that ran out of something: its words, what it left, or what it took away."""
    why = fault(ended)
    if why is None and ended.code != 0:
        after, before = contents(place), contents(world.before(name))
        left = [each for each in after if each.endswith(".partial")]
        gone = [each for each in before if each not in after]
        why = f"left {left[0]}" if left else f"lost {gone[0]}" if gone else None
    return why


def _disk(world: World, name: str, rng: random.Random, place: Path) -> Row:
    """A file system that fills up on the way; then it is made larger."""
    share = rng.random()
    before, after = (_blocks(folder) for folder in (world.before(name), world.after(name)))
    size = before + share * (after - before)
    place.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={4 * max(1, int(size))}k", "tmpfs", str(place)], check=True
    )
    try:
        shutil.copytree(world.before(name), place, dirs_exist_ok=True)
        ended = run(stage_of(name).argv, place)
        row = {
            "detail": f"{share:.3f} of {4 * (after - before)} KiB",
            "full": ended.code != 0,
            "said": ended.last_line(),
        }
        why = _refused(world, name, place, ended)
        if why is not None:
            return {**row, "why": why, "code": ended.code, "last": ended.last_line()}
        subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
        return {**row, **_again(world, name, place)}
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _blocks(folder: Path) -> int:
    """Pages that a tree takes in memory, where folders take none."""
    page = resource.getpagesize()
    return sum(-(-each.stat().st_size // page) for each in folder.rglob("*") if each.is_file())


def _memory(world: World, name: str, rng: random.Random, place: Path) -> Row:
    """So little memory beyond the imports that some allocation fails; then the same command with all of it."""
    room = int(2 ** rng.uniform(0, 7) * MIB)  # 1 to 128 MiB
    shutil.copytree(world.before(name), place)
    ended = run(stage_of(name).argv, place, memory=room)
    row = {
        "detail": f"{room / MIB:.0f} MiB beyond the imports",
        "short": ended.code != 0,
        "said": ended.last_line(),
    }
    why = _refused(world, name, place, ended)
    if why is not None:
        return {**row, "why": why, "code": ended.code, "last": ended.last_line()}
    return {**row, **_again(world, name, place)}


def _mutate(world: World, family: str, rng: random.Random, place: Path) -> Row:
    """Something malformed: one line or success, and nothing that was there is changed."""
    place.mkdir(parents=True)
    brought = bring(family, rng, world, place)
    before = contents(place)
    ended = run(brought.argv, place)
    why = fault(ended)
    after = contents(place)
    kept = {
        name: digest
        for name, digest in before.items()
        if not name.startswith(brought.may_change + (brought.outputs if ended.code == 0 else ()))
    }
    if why is None:
        changed = [name for name, digest in kept.items() if after.get(name) != digest]
        why = f"{changed[0]} is {'changed' if changed[0] in after else 'gone'}" if changed else None
    if why is None and ended.code == 0 and brought.as_reference is not None:
        why = _other_numbers(world.after(brought.as_reference), place, brought.compared)
    row = {"detail": brought.detail, "command": " ".join(brought.argv)[:200]}
    return {**row, "why": why, "code": ended.code, "last": ended.last_line()}


def _other_numbers(reference: Path, place: Path, names: Sequence[str]) -> str | None:
    """A run that goes on from something damaged must end where an undamaged one does."""
    wanted, actual = contents(reference), contents(place)
    other = next((name for name in names if wanted[name] != actual.get(name)), None)
    return f"went on in silence to another {other}" if other else None


def summary(rows: Sequence[Row]) -> list[Row]:
    """Counts of each part and stage or family."""
    table: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["part"], row["what"])
        line = table.setdefault(key, {"part": key[0], "what": key[1], "tried": 0, "right": 0, "failed": 0})
        line["tried"] += 1
        line["failed" if row["why"] else "right"] += 1
        for name in ("kills", "full", "short"):
            if name in row:
                line[name] = line.get(name, 0) + int(row[name])
        if row["part"] == "mutate":
            line["refused"] = line.get("refused", 0) + (row["code"] != 0)
    order = {name: place for place, name in enumerate(("kill", "disk", "memory", "mutate"))}
    return sorted(table.values(), key=lambda line: order[line["part"]])


def families() -> dict[str, int]:
    """The families of malformed inputs, and their shares of all."""
    return {name: share for name, (share, _) in FAMILIES.items()}
