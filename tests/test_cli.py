"""The command line as a user meets it: quick help, one clear line for bad input, exit code 2, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minisora import cli

TINY_STEPS = ["-s", "train_vae.steps=2", "-s", "train_dit.steps=2"]


def run(
    *arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["minisora", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['minisora', '--help']\n"
        "from minisora.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'accelerate', 'av', 'matplotlib', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "train", "sample", "evaluate", "flops", "data"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "-s", "dit.widht=64"], "unknown config key 'dit.widht' (did you mean 'width'?)"),
        (["train", "-s", "dit.width=abc"], "config key 'dit.width' = 'abc'"),
        (["train", "-s", "dit.width"], "is not key=value"),
        (["train", "-c", "nonsense"], "config 'nonsense' not found; shipped configs: "),
        (["train", "vae", "-s", "clip.frames=16"], "16 frames do not fit the temporal stride 4"),
        (
            ["train", "vae", "-s", "clip.height=60"],
            "height 60 does not fit the spatial stride 8: use 56 or 64",
        ),
        (["train", "vae", "-d", "missing-folder"], "missing-folder"),
        (["train", "dit"], "no trained VAE in"),
        (["train", "vae", "-s", "train_vae.batch_size=5", "-s", "train_vae.accumulation=2"], "use 4 or 6"),
        (["train", "vae", "-s", "vae.widths=[8]"], "vae.widths has 1 entries"),
        (["train", "-s", "text.kind=pretrained"], "needs text.path"),
        (["sample", "-m", "nowhere", "-p", "x"], "nowhere is not a model folder"),
        (["data", "check", "nowhere"], "nowhere"),
        (["evaluate"], "either --model DIR or --videos DIR"),
        (["evaluate", "-m", "nowhere"], "nowhere is not a model folder"),
        (["evaluate", "-m", "nowhere", "--prompts", "71"], "prompts '71': no such file; use 72, all"),
        (["evaluate", "-m", "nowhere", "--prompts", "cats.txt"], "cats.txt, line 2: caption 'a cat'"),
        (["distill"], "give the teacher by either --run DIR or --model DIR"),
        (["distill", "-m", "nowhere", "--config", "toy"], "nowhere is not a model folder"),
        (["scale", "fit", "-o", "nowhere"], "no ladder in nowhere"),
        (["report", "--law", "nowhere.json"], "no law at nowhere.json"),
        (["evaluate", "--videos", "nowhere"], "nowhere is not a folder"),
        (["evaluate", "--videos", "."], "has no metadata.csv: write one with the columns file_name,text"),
        (["evaluate", "--videos", "cats"], "can be judged (1 skipped; a.mp4: caption 'a cat'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cats.txt").write_text("a red circle moving left\na cat\n")
    Path("cats").mkdir()
    Path("cats/metadata.csv").write_text("file_name,text\na.mp4,a cat\n")
    code, _, err = run(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")


def test_an_empty_folder_and_a_folder_without_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("train", "-d", str(tmp_path / "empty"), capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "empty" in err


def test_data_made_checked_trained_on_and_sampled(
    tiny_config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, clips, out = str(tiny_config_file), str(tmp_path / "clips"), tmp_path / "run"

    def do(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["minisora", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert not stop.value.code, err
        return out

    do("data", "make", clips, "--clips", "10", "-c", config)
    do("data", "check", clips, "-c", config, "--json", str(tmp_path / "check.json"))
    assert json.loads((tmp_path / "check.json").read_text())["usable"] == 10
    assert "Next: minisora sample" in do("train", "-d", clips, "-c", config, "-o", str(out), *TINY_STEPS)
    do("sample", "-m", str(out / "model"), "-p", "a red circle", "-o", str(tmp_path / "x.mp4"))
    assert {"x.mp4", "x.gif", "x.png"} <= {p.name for p in tmp_path.iterdir()}
    said = do("evaluate", "--videos", clips, "-o", str(tmp_path / "judged"))
    assert "0 of 10 clips differ" in said
    (tmp_path / "one.txt").write_text("a red circle moving left\n")
    arguments = ["--prompts", str(tmp_path / "one.txt"), "--num-inference-steps", "1", "--run", str(out)]
    said = do("evaluate", "-m", str(out / "model"), *arguments, "-o", str(tmp_path / "judged"))
    assert "1 of 1 clips" in said
    told = json.loads((tmp_path / "judged" / "evaluate.json").read_text())
    assert told["score"]["color"]["total"] == 1
    assert told["curves"]["finding"]["sentence"] in said


def test_a_checkpoint_of_another_config_is_refused_and_survives(
    tiny_config_file: Path,
    tiny_run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in tiny_run.rglob("*.safetensors"))
    arguments = ["train", "dit", "-c", str(tiny_config_file), "-o", str(tiny_run), "-s", "dit.depth=3"]
    code, _, err = run(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert "trained with dit.depth=2, now it is 3" in err
    assert sorted((p, p.stat().st_mtime_ns) for p in tiny_run.rglob("*.safetensors")) == before


def test_a_place_without_permission(
    tiny_config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    arguments = ["train", "-c", str(tiny_config_file), "-o", str(blocked / "run")]
    code, _, err = run(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full to stand in for a full disk")
def test_a_full_disk_leaves_the_old_checkpoint(
    tiny_config_file: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from rich.console import Console

    from minisora.config import load
    from minisora.errors import UserError
    from minisora.training import checkpoint
    from minisora.training.stages import train_dit

    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model").symlink_to(tiny_run / "vae" / "model")
    quiet = Console(quiet=True)
    train_dit(load(tiny_config_file, ["train_dit.steps=5"]), tmp_path, quiet)
    kept = checkpoint.checkpoints(tmp_path / "dit" / "checkpoints")
    assert [p.name for p in kept] == ["step-00000005"]
    content = {p: p.read_bytes() for p in kept[0].iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="No space left on device.*last good checkpoint is .*step-00000005"):
        train_dit(load(tiny_config_file, ["train_dit.steps=10"]), tmp_path, quiet)
    assert checkpoint.checkpoints(tmp_path / "dit" / "checkpoints") == kept
    assert {p: p.read_bytes() for p in kept[0].iterdir()} == content
    monkeypatch.undo()
    train_dit(load(tiny_config_file, ["train_dit.steps=10"]), tmp_path, quiet)
