"""scripts/setup.sh without the venv package or the internet, scripts/gpu.sh in pieces, scripts/studio.sh by parts."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A python3 whose .venv has a python that ends with the same status: 1 as Debian's without python3-venv, or 0.
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
mkdir -p .venv/bin
echo "exit STATUS" > .venv/bin/python
chmod +x .venv/bin/python
echo "The virtual environment was (not) created successfully"
exit STATUS
"""


def test_a_venv_without_pip_is_told_in_one_line_and_made_anew(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def setup(status: int) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "bin" / "python3"
        python.write_text(PYTHON.replace("STATUS", str(status)))
        python.chmod(0o755)
        path = f"{tmp_path / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return subprocess.run(
            ["bash", "scripts/setup.sh"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True
        )

    for _ in range(2):
        done = setup(status=1)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "install its parts with 'apt install python3-venv', then run this again" in done.stderr
        assert not (tmp_path / ".venv").exists()
    # With the package installed a .venv that was left without pip is made anew.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text("exit 1")
    done = setup(status=0)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / ".venv").glob(".minisora-run-*"))


GPU_PYTHON = """#!/bin/sh
echo "$@" >> calls
[ "$1" = -c ] && case "$2" in *print*) echo "NVIDIA-H100-80GB-HBM3" ;; esac
exit 0
"""
GPU_MINISORA = """#!/bin/sh
echo "$@" >> calls
mkdir -p runs/NVIDIA-H100-80GB-HBM3
touch runs/NVIDIA-H100-80GB-HBM3/metrics.jsonl
[ "$1" = calibrate ] && [ -f fails ] && exit 7
[ "$1" = train ] && [ -f killed ] && kill -9 $$
exit 0
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with scripts/gpu.sh, where a card, and every command, is played."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "gpu.sh", tmp_path / "scripts")
    played = {"scripts/setup.sh": 'echo "$@" >> calls', ".venv/bin/python": GPU_PYTHON}
    for name, text in {**played, ".venv/bin/minisora": GPU_MINISORA}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    return tmp_path


def gpu(machine: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A call, and the commands that it gave."""
    (machine / "calls").unlink(missing_ok=True)
    command = ["bash", "scripts/gpu.sh", *options]
    done = subprocess.run(command, cwd=machine, capture_output=True, text=True, check=False)
    calls = machine / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_pieces_that_are_done_are_not_done_again(machine: Path) -> None:
    done, calls = gpu(machine, "--minutes", "8", "--ladder", "--wheels", "wheels", "--system-torch")
    assert done.returncode == 0, done.stderr
    assert calls[0] == "dev --wheels wheels --system-torch"
    begun = [call.split()[0] for call in calls if not call.startswith(("-c", "dev"))]
    memory, check = "benchmarks/plan_memory.py", "benchmarks/ladder_prediction.py"
    assert begun == ["-m", "flops", "calibrate", memory, "train", "scale", check]
    assert (machine / "benchmarks/results/NVIDIA-H100-80GB-HBM3/metrics.jsonl").exists()
    done, calls = gpu(machine, "--minutes", "8", "--ladder")
    assert done.returncode == 0
    assert all(call.startswith(("-c", "dev")) for call in calls)


def test_a_piece_that_fails_is_done_again_and_the_others_are_not(machine: Path) -> None:
    (machine / "fails").touch()
    done, calls = gpu(machine)
    assert done.returncode == 7
    assert "error: calibrate ended with status 7" in done.stderr
    (machine / "fails").unlink()
    done, calls = gpu(machine)
    assert done.returncode == 0
    begun = [call.split()[0] for call in calls if not call.startswith(("-c", "dev"))]
    assert begun == ["calibrate", "benchmarks/plan_memory.py", "train"]


def test_a_piece_that_the_system_killed_has_failed_and_was_not_stopped(machine: Path) -> None:
    (machine / "killed").touch()
    done, _ = gpu(machine, "--minutes", "8")
    assert done.returncode == 137
    assert "error: train ended with status 137" in done.stderr


def test_where_time_is_up_the_next_piece_is_named(machine: Path) -> None:
    done, _ = gpu(machine, "--minutes", "0")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "next: tests; run this again"


def test_a_piece_is_stopped_when_time_is_up_and_goes_on_in_the_next_call(machine: Path) -> None:
    """Of a limit that is over as soon as it begins, as `timeout` tells it."""
    (machine / "bin").mkdir()
    timeout = machine / "bin" / "timeout"
    timeout.write_text('#!/bin/sh\nshift 2\ncase "$*" in *train*) exit 124 ;; *) exec "$@" ;; esac\n')
    timeout.chmod(0o755)
    for _ in range(2):
        done = subprocess.run(
            ["bash", "scripts/gpu.sh", "--minutes", "8"],
            cwd=machine,
            env={"PATH": f"{machine / 'bin'}:/usr/local/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3
        assert done.stdout.splitlines()[-1] == "stopped: train; run this again"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minuts"], "unknown option --minuts"),
        (["--minutes"], "no whole"),
        (["--minutes", "08"], "no whole"),
    ],
)
def test_a_wrong_option_of_gpu_sh_is_one_line(machine: Path, options: list[str], message: str) -> None:
    done, calls = gpu(machine, *options)
    assert (done.returncode, calls) == (2, [])
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_setup_takes_carried_wheels_and_a_torch_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / "bin" / "python3"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "$@" > made\nmkdir -p .venv/bin\n'
        'printf "#!/bin/sh\\necho \\$@ > ran\\n" > .venv/bin/python\nchmod +x .venv/bin/python\n'
    )
    python.chmod(0o755)

    def setup(*options: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        command = ["bash", "scripts/setup.sh", *options]
        return subprocess.run(
            command, cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=False
        )

    done = setup("dev", "--wheels", "wheels")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no folder with wheels" in done.stderr
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-2.14.1-py3-none-any.whl").touch()
    done = setup("dev", "--wheels", "wheels", "--system-torch")
    assert done.returncode == 0, done.stderr
    assert "--system-site-packages" in (tmp_path / "made").read_text()
    assert "--no-index --find-links wheels --editable .[dev]" in (tmp_path / "ran").read_text()


def test_parts_of_the_studio_are_run_by_name(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "studio.sh", tmp_path / "scripts")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" >> calls\n')
    python.chmod(0o755)

    def studio(*parts: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "scripts/studio.sh", *parts], cwd=tmp_path, capture_output=True, text=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHON": str(python)},
        )  # fmt: skip

    refused = studio("gallery")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: unknown part gallery; known: walk views")
    assert studio("paint").returncode == 0
    assert (tmp_path / "calls").read_text() == "benchmarks/studio_paint.py --json runs/studio/paint.json\n"
    # Without a name all of them, and each file is there.
    assert studio().returncode == 0
    words = (tmp_path / "calls").read_text().split()
    files = {word for word in words if word.startswith(("tests/", "benchmarks/", "scripts/"))}
    assert {"tests/studio/test_walk.py", "tests/studio/test_views.py", "benchmarks/studio_load.py"} <= files
    assert [word for word in files if not (ROOT / word).exists()] == []
