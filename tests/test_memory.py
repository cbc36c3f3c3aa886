"""What memory there is by every limit, and running out of it as one line."""

import errno
import resource
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from minisora import cli, memory
from minisora.errors import UserError
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.costs import check_state
from minisora.training.distill import make_trajectories

GIB = 1 << 30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 20 GiB free and no limit; returns where control groups are looked for."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 20 * GIB}))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_GROUP_ROOT", tmp_path / "groups")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def write_group(folder: Path, names: tuple[str, str, str], limit: str, use: int, idle: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{use}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {idle}\n")


def test_a_machine_without_limits(free: Path) -> None:
    assert memory.available_memory() == 20 * GIB
    assert memory.available_memory(torch.device("cpu")) == 20 * GIB


def test_processes_of_a_machine_share(free: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.available_memory() == 5 * GIB


def test_a_job_is_held_to_its_control_group_or_one_above(free: Path) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    (free / "cgroup").write_text("0::/job/step\n")
    write_group(free / "groups" / "job" / "step", names, "max", GIB, 0)
    assert memory.available_memory() == 20 * GIB
    write_group(free / "groups" / "job", names, str(4 * GIB), 3 * GIB, GIB // 2)
    assert memory.available_memory() == 3 * GIB // 2  # cached files make way


def test_control_groups_of_version_1(free: Path) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (free / "cgroup").write_text("9:name=systemd:/\n8:cpu,memory:/job\n")
    write_group(free / "groups" / "memory", names, str((1 << 63) - 4096), GIB, 0)  # no limit
    write_group(free / "groups" / "memory" / "job", names, str(2 * GIB), GIB, 0)
    assert memory.available_memory() == GIB


def test_ulimit_counts_addresses(free: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + GIB, used + GIB))
    assert abs(memory.available_memory() - GIB) < GIB // 4
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used // 2, used // 2))
    assert memory.available_memory() == 0


def test_what_is_out_of_memory_and_what_is_not() -> None:
    with pytest.raises(RuntimeError) as torch_error:
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as numpy_error:
        np.empty(1 << 60, dtype=np.uint8)
    assert memory.is_out_of_memory(torch_error.value)
    assert memory.is_out_of_memory(numpy_error.value)
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert memory.is_out_of_memory(RuntimeError("can't start new thread"))
    assert not memory.is_out_of_memory(RuntimeError("shapes do not fit"))
    assert "1,073,741,824.0 GiB more asked for" in memory.out_of_memory(torch_error.value, "rest")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1024 bytes.\nmore"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_running_out_is_one_line_and_exit_code_2(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("minisora.data.folder.doctor.check", fail)
    monkeypatch.setattr(sys, "argv", ["minisora", "data", "check", "."])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    _, err = capsys.readouterr()
    assert stop.value.code == 2
    assert err.startswith("error: out of memory (")
    assert "make the batch, the clip or the model smaller" in err
    assert len(err.strip().splitlines()) == 1


def test_sizes_in_words() -> None:
    assert [memory.size_text(n) for n in (5, 2048, 3 << 20, 1.5 * GIB)] == [
        "5 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "1.5 GiB",
    ]


def test_a_training_that_surely_does_not_fit_is_refused(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_state(1000, torch.device("cpu"))
    with pytest.raises(
        UserError, match=r"training 1,000,000,000\.0 M parameters takes .* make the model smaller"
    ):
        check_state(10**15, torch.device("cpu"))
    pipeline = load_pipeline(tiny_run / "model", device="cpu")
    monkeypatch.setattr("minisora.training.distill.available_memory", lambda: 1000)
    with pytest.raises(UserError, match="2 trajectories of 5 states are .* take fewer --samples"):
        make_trajectories(pipeline, ["a red circle"] * 2, tiny_run / "unused", 4)
    monkeypatch.setattr("minisora.pipelines.pipeline.available_memory", lambda _: 1000)
    with pytest.raises(UserError, match="72 x 9 frames of 32x32 are .* sample fewer at a time"):
        evaluate_pipeline(pipeline, ["a red circle moving left"] * 72)
