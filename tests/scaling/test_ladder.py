"""The ladder: compute is the ledger's times steps, runs are done once, and a failing one stops nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from rich.console import Console

from minisora.errors import UserError
from minisora.scaling import run_ladder as running
from minisora.scaling.figure import write_figures
from minisora.scaling.fit_laws import fit_file
from minisora.scaling.ladder import (
    BudgetConfig,
    LadderConfig,
    plan,
    read_ladder,
    shard,
    shared_config,
    tokens_per_clip,
)
from minisora.scaling.results import LadderFile, append_row, read_rows
from minisora.scaling.run_ladder import run_ladder

QUIET = Console(quiet=True)
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LadderConfig:
    """The shipped smoke ladder with smaller models and budgets, few prompts, and without its second seeds."""
    ladder = read_ladder("smoke")
    prompts = tmp_path_factory.mktemp("prompts") / "few.txt"
    prompts.write_text(
        "a red circle moving left\na small blue square moving right\na green triangle moving up\n"
    )
    return ladder.model_copy(
        update={
            "base_flops": 2.6e9,
            "budgets": tuple(BudgetConfig(times=times, dials=(2, 3, 4)) for times in (1, 1.25, 1.5, 2)),
            "shown": (1, 1.5, 2),
            "prompts": str(prompts),
            "set": (*ladder.set, "train_vae.steps=12", "train_vae.validate_every=12", "sample.steps=2"),
        }
    )


@pytest.fixture(scope="module")
def finished(small: LadderConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ladder")
    run_ladder(small, out, QUIET)
    return out


@pytest.mark.parametrize(
    "name", ["smoke", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cpu", "h100"))]
)
def test_shipped_ladders_have_the_sizes_and_budgets_they_promise(name: str) -> None:
    ladder = read_ladder(name)
    runs = plan(ladder)
    assert len({run.name for run in runs}) == len(runs)
    isoflop = [run for run in runs if run.axis == "isoflop"]
    for run in isoflop:
        assert run.flops == pytest.approx(run.times * ladder.base_flops, rel=0.05)
        # Nothing repeats.
        assert run.clips == run.samples
    if name != "smoke":
        assert ladder.base_flops >= 2e12
        assert {1, 4, 32} <= {run.times for run in isoflop}
        wide = [
            t for t in {run.times for run in isoflop} if len({r.dial for r in isoflop if r.times == t}) >= 5
        ]
        assert len(wide) >= 4


@pytest.mark.slow
def test_compute_is_what_training_steps_are_counted_to_take(small: LadderConfig, finished: Path) -> None:
    rows = {row["name"]: row for row in read_rows(finished / "results.jsonl")}
    assert sorted(rows) == sorted(run.name for run in plan(small))
    for run in plan(small):
        assert rows[run.name]["flops"] == run.flops_per_step * run.steps
        metrics = (finished / "runs" / run.name / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in metrics]
        assert max(steps) == run.steps
    # The trainer counts the whole step of the first batch, text encoder and all.
    run = plan(small)[0]
    whole = execute_count(small, run.name)
    assert whole == pytest.approx(run.flops_per_step + run.text_flops_per_step, rel=1e-3)


def execute_count(ladder: LadderConfig, name: str) -> float:
    """FLOPs of a real training step of a run, counted while it runs."""
    from minisora.data.clips import to_float
    from minisora.data.dataset import open_dataset
    from minisora.flops.count_torch import count_step
    from minisora.models.build import build_vae
    from minisora.training.dit_task import DiTTask
    from minisora.training.latents import EncodedOnDemand

    run = next(run for run in plan(ladder) if run.name == name)
    config = run.config(shared_config(ladder))
    vae = build_vae(config).eval().requires_grad_(False)
    source = EncodedOnDemand(
        open_dataset(config, "train"), lambda videos: vae.to_latents(to_float(videos)).detach()
    )
    task = DiTTask(config, vae, source, source)
    for start in range(0, 20 * run.batch, run.batch):
        batch = task.source.at(range(start, start + run.batch))
        # As long as the ledger's captions.
        if max(len(caption.split()) for caption in batch.captions) > 7:
            return count_step(lambda batch=batch: task.loss(task.model, batch)[0]).model_flops
    raise AssertionError("no batch has a long caption")


@pytest.mark.slow
def test_a_finished_ladder_is_left_alone(small: LadderConfig, finished: Path) -> None:
    before = (finished / "results.jsonl").read_bytes()
    run_ladder(small, finished, QUIET)
    assert (finished / "results.jsonl").read_bytes() == before


@pytest.mark.slow
def test_law_and_figures_come_from_the_results_alone(
    small: LadderConfig, finished: Path, tmp_path: Path
) -> None:
    law = fit_file(finished / "results.jsonl", tokens_per_clip(shared_config(small)), tmp_path / "law.json")
    assert set(law.budget_law.intervals) == {"E", "A", "alpha"}
    assert min(law.optimal.decades_beyond_data) > 10
    rows = read_rows(finished / "results.jsonl")
    files = write_figures(small, rows, law, finished / "samples", tmp_path)
    assert [file.name for file in files] == [
        "figure.png",
        "compute.mp4",
        "isoflop.png",
        "repetition.png",
        "rates.png",
    ]
    assert all(file.stat().st_size > 1000 for file in files)


@pytest.mark.slow
def test_a_failing_run_is_told_and_the_others_go_on(
    small: LadderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = small.model_copy(update={"budgets": small.budgets[:1], "repetition": None, "rates": None})
    real, broken = running.train_dit_on, plan(few)[1].name

    def train(config: Any, vae: Any, source: Any, validation: Any, folder: Path, console: Console) -> Any:
        if folder.name == broken:
            raise RuntimeError("out of memory")
        return real(config, vae, source, validation, folder, console)

    monkeypatch.setattr(running, "train_dit_on", train)
    rows = run_ladder(few, tmp_path, QUIET)
    assert sorted(row["name"] for row in rows) == sorted(r.name for r in plan(few) if r.name != broken)
    (failure,) = read_rows(tmp_path / "failures.jsonl")
    assert failure["run"]["name"] == broken
    assert "out of memory" in failure["reason"]
    monkeypatch.setattr(running, "train_dit_on", real)
    assert len(run_ladder(few, tmp_path, QUIET)) == 3


@pytest.mark.slow
def test_processes_on_one_folder_take_the_largest_run_that_no_other_has(
    small: LadderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = small.model_copy(update={"repetition": None, "rates": None})
    first, *others = sorted(plan(few), key=lambda run: -run.flops)
    begun: list[str] = []

    def train(config: Any, vae: Any, source: Any, validation: Any, folder: Path, console: Console) -> Any:
        begun.append(folder.name)
        raise RuntimeError("enough")

    monkeypatch.setattr(running, "train_dit_on", train)
    (tmp_path / "runs").mkdir()
    # As the process that trains it.
    with FileLock(tmp_path / "runs" / f".{first.name}.lock"):
        run_ladder(few, tmp_path, QUIET, largest_first=True)
    assert begun == [run.name for run in others]
    # Finished by another meanwhile.
    append_row(tmp_path / "results.jsonl", {"name": others[0].name})
    begun.clear()
    run_ladder(few, tmp_path, QUIET)
    assert sorted(begun) == sorted(run.name for run in plan(few) if run.name != others[0].name)


@pytest.mark.slow
def test_a_killed_ladder_goes_on_without_a_run_or_row_twice(small: LadderConfig, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    file = tmp_path / "ladder.yaml"
    budgets = tuple(budget.model_copy(update={"dials": (2, 3)}) for budget in small.budgets[:3])
    alone = small.model_copy(update={"budgets": budgets, "repetition": None, "rates": None})
    file.write_text(yaml.safe_dump(alone.model_dump(mode="json", exclude_none=True)))
    command = [sys.executable, "-m", "minisora", "scale", "run"]
    command += ["-l", str(file), "-o", str(folder), "--jobs", "2"]
    results = folder / "results.jsonl"
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, start_new_session=True)
    # What takes longer hangs, on however busy a machine.
    deadline = time.monotonic() + 900
    while process.poll() is None and time.monotonic() < deadline:
        if results.is_file() and read_rows(results):
            break
        time.sleep(0.02)
    assert process.poll() is None, "the ladder was over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)  # its jobs too
    process.wait()
    kept = results.read_text()
    with results.open("a") as cut:
        # As a power failure leaves it.
        cut.write('{"name": "half a li')
    # What a process leaves is all that is known of it: this one may go on as well as another.
    run_ladder(read_ladder(str(file)), folder, QUIET)
    names = [row["name"] for row in read_rows(results)]
    assert len(names) == len(set(names)) == 6
    assert results.read_text().startswith(kept)


def test_a_row_is_appended_once(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for _ in range(2):
        append_row(file, {"name": "a", "loss": 1.0})
    assert read_rows(file) == [{"name": "a", "loss": 1.0}]
    with file.open("a") as whole_but_for_its_end:
        whole_but_for_its_end.write('{"name": "b", "loss": 2.0}')
    append_row(file, {"name": "c", "loss": 3.0})
    assert [row["name"] for row in read_rows(file)] == ["a", "b", "c"]
    file.write_text('{"name": "a"}\nnonsense\n{"name": "b"}\n')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_rows(file)


def test_shards_share_the_runs(small: LadderConfig) -> None:
    runs = plan(small)
    parts = [shard(runs, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in runs)
    for text in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(UserError, match="must be i/n"):
            shard(runs, text)


@pytest.mark.slow
def test_bad_ladders_are_refused_by_name(tmp_path: Path, small: LadderConfig, finished: Path) -> None:
    with pytest.raises(UserError, match=r"ladder 'nope' not found; shipped ladders: cpu, h100, smoke"):
        read_ladder("nope")
    file = tmp_path / "ladder.yaml"
    file.write_text("base_flops: -1\nbudgets: []\n")
    with pytest.raises(UserError, match="'base_flops'"):
        read_ladder(str(file))
    with pytest.raises(UserError, match=r"are \d steps: leave the dial out there, or set base_flops"):
        plan(small.model_copy(update={"base_flops": 1e8}))
    # Only a guess.
    faster = small.model_copy(update={"flops_per_second": 1e9})
    assert LadderFile.read(finished) == LadderFile.of(faster)
    first, *others = small.budgets
    more = small.model_copy(update={"budgets": (first.model_copy(update={"seeds": 2}), *others)})
    assert LadderFile.of(small).grows_into(LadderFile.of(more))
    assert not LadderFile.of(more).grows_into(LadderFile.of(small))
    assert not LadderFile.of(small).grows_into(
        LadderFile.of(more.model_copy(update={"set": (*more.set, "seed=5")}))
    )
    other = small.model_copy(update={"base_flops": 9e9})
    with pytest.raises(UserError, match="holds the results of another ladder"):
        run_ladder(other, finished, QUIET)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\x9d", "is not text"),
        (b"3", "line 1 is no row with a name"),
        (b"[" * 100_000 + b"\n{}", "line 1 is not JSON"),
        (b'{"name": "d2-c1"}', "run d2-c1 has times = None"),
    ],
)
def test_results_that_are_none_are_named(line: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(line)
    with pytest.raises(UserError, match=told):
        fit_file(tmp_path / "results.jsonl", 12, tmp_path / "law.json")


@pytest.mark.slow
def test_a_ladder_on_a_gpu_tells_its_time_left(small: LadderConfig, finished: Path) -> None:
    """A card has no threads."""
    rows = read_rows(finished / "results.jsonl")[:1]
    rows[0]["device"] = {"type": "cuda", "name": "a card"}
    assert "as the finished runs took" in str(running.plan_table(small, rows).caption)
