"""The command line as a user meets it: quick help, one clear line for bad input, exit code 2, nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from minisora import cli
from minisora.cli.evaluate import new_form
from minisora.config import load

EDIT = ["edit", "-m", "toy", "-p", "a red circle moving left"]
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
        (["evaluate", "prompts"], "Missing option"),
        (["evaluate", "prompts", "-m", "nowhere"], "nowhere is not a model folder"),
        (
            ["evaluate", "prompts", "-m", "nowhere", "--prompts", "71"],
            "prompts '71': no such file; use 72, all",
        ),
        (
            ["evaluate", "prompts", "-m", "nowhere", "--prompts", "cats.txt"],
            "cats.txt, line 2: caption 'a cat'",
        ),
        (["distill"], "give the teacher by either --run DIR or --model DIR"),
        (["distill", "-m", "nowhere", "--config", "toy"], "nowhere is not a model folder"),
        (["scale", "fit", "-o", "nowhere"], "no ladder in nowhere"),
        (["report", "--law", "nowhere.json"], "no law at nowhere.json"),
        (["evaluate", "run", "cats"], "cats is not a run folder"),
        (["evaluate", "run", "cats", "--features", "r4d"], "--features 'r4d' is neither r3d_18"),
        (
            ["evaluate", "run", "cats", "--samples-per-prompt", "2"],
            "--samples-per-prompt goes with --prompts",
        ),
        (
            ["evaluate", "run", "cats", "--prompts", "72", "--samples", "2"],
            "--samples would do nothing beside --prompts",
        ),
        (["evaluate", "videos", "nowhere"], "nowhere is not a folder"),
        (["evaluate", "videos", "."], "has no metadata.csv: write one with the columns file_name,text"),
        (["evaluate", "videos", "cats"], "can be judged (1 skipped; a.mp4: caption 'a cat'"),
        (
            ["train", "-s", "seed=2001-99-99"],
            "--set seed=2001-99-99: the value is not YAML (month must be in",
        ),
        (
            ["demo", "-s", "data.source=folder", "-s", "data.path=cats"],
            "not data.source=folder: use minisora tr",
        ),
        (["train", "--vae", "cats"], "--vae cats is for the DiT alone: say 'minisora train dit'"),
        (["train", "vae", "--vae", "cats"], "--vae cats is for the DiT alone"),
        # Places are looked at before the work, and no input is written over.
        (["sample", "-p", "x", "-o", "x.gif"], "'x.gif' must end in .mp4"),
        (["sample", "-p", "x", "-o", "cats"], "cats is a folder: give a file in it, such as cats/name.mp4"),
        (["sample", "-p", "x", "-o", "cats.txt/x.mp4"], "cats.txt is a file, not a folder"),
        ([*EDIT, "animate", "-v", "i.png", "-o", "i.mp4"], "i.png is the input i.png, which would be lost"),
        (
            [*EDIT, "extend", "-v", "link.gif", "-o", "c.mp4"],
            "c.gif is the input link.gif, which would be lost",
        ),
        ([*EDIT, "extend", "-v", "c.gif", "-o", "x.gif"], "'x.gif' must end in .mp4"),
        (
            ["augment", "-m", "toy", "-d", "cats", "-p", "x", "-o", "cats"],
            "--out cats is the folder of --data",
        ),
        (
            ["caption", "label", "--run", "x", "--data", "cats", "-o", "cats/metadata.csv"],
            "its captions would be",
        ),
        (["caption", "label", "--run", "x", "--data", "cats", "-o", "x.json"], "'x.json' must end in .csv"),
        (["data", "check", "cats", "--json", "cats/metadata.csv"], "must end in .json"),
        (["calibrate", "-o", "cats"], "cats is a folder: give a file in it, such as cats/name.json"),
        (["calibrate", "--plot", "x"], "'x' must end in .png or .svg"),
        (["calibrate", "a.json"], "a.json would do nothing: add --compare"),
        (
            ["calibrate", "--compare", "a.json", "--device", "cuda"],
            "--device would do nothing beside --compare",
        ),
        (["calibrate", "--compare", "none.json"], "no calibration at none.json"),
        (["report", "--calibration", "none", "--calibration", "a.json"], "give one or the other"),
        (["flops", "--plot", "x.foo"], "'x.foo' must end in .png or .svg"),
        (["flops", "--diffusers", "X", "--args", "a.json", "--json", "a.json"], "a.json is the input a.json"),
        (["report", "-o", "cats.txt"], "cats.txt is a file, not a folder"),
        (["evaluate", "prompts", "-m", "toy", "-o", "cats.txt"], "cats.txt is a file, not a folder"),
        (
            ["evaluate", "steps", "-m", "toy", "--steps", "1,2", "-o", "cats.txt"],
            "cats.txt is a file, not a folder",
        ),
        (["export", "-m", "toy", "-o", "cats.txt/x"], "cats.txt is a file, not a folder"),
        # Options that would do nothing are refused.
        (["flops", "--table", "dit", "--time"], "--time would do nothing beside --table"),
        (["flops", "--table", "dit", "--device", "cpu"], "--device would do nothing beside --table"),
        (
            ["flops", "--diffusers", "X", "--time", "-c", "modes"],
            "--config and --time would do nothing beside --d",
        ),
        (["flops", "--args", "a.json"], "--args a.json belongs to --diffusers MODEL"),
        (["evaluate", "steps", "-m", "x", "--modes"], "No such option: --modes"),
        (["evaluate", "videos", "cats", "--steps", "4"], "No such option: --steps"),
        (
            ["evaluate", "modes", "-m", "x", "--samples-per-prompt", "2"],
            "No such option: --samples-per-prompt",
        ),
        (["scale", "run", "--jobs", "2", "--shard", "1/2"], "--shard 1/2 would do nothing beside --jobs 2"),
        (["scale", "run", "--dry-run", "--shard", "3/2"], "--shard '3/2' must be i/n"),
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
    for name in ("i.png", "c.gif", "a.json"):
        Path(name).write_text("{}")
    Path("link.gif").symlink_to("c.gif")
    held = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code, _, err = run(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert {path: path.read_bytes() for path in held} == held


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
@pytest.mark.parametrize(
    ("command", "others"), [("flops", "cpu or meta"), ("calibrate", "cpu")], ids=lambda each: each
)
def test_a_cuda_device_that_is_not_there(
    command: str, others: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(command, "--device", "cuda", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert err == f"error: --device cuda: no CUDA device here: use --device {others}\n"


def test_a_dry_run_shows_its_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["scale", "run", "--dry-run", "--out", str(tmp_path / "ladder")]
    code, whole, _ = run(*arguments, "--shard", "2/2", capsys=capsys, monkeypatch=monkeypatch)
    names = [line.split()[1] for line in whole.splitlines() if line.startswith("│")]
    assert code == 0
    assert f"shard 2/2, {len(names[1::2])} runs: {', '.join(names[1::2])}\n" in whole
    assert not (tmp_path / "ladder").exists()


def test_an_interruption_is_told_and_is_status_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minisora.data.folder.doctor.check", stop)
    code, _, err = run("data", "check", ".", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, err) == (130, "interrupted\n")


def test_an_empty_folder_and_a_folder_without_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("train", "-d", str(tmp_path / "empty"), capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "empty" in err


@pytest.mark.slow
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
    said = do("evaluate", "videos", clips, "-o", str(tmp_path / "judged"))
    assert "0 of 10 clips differ" in said
    (tmp_path / "one.txt").write_text("a red circle moving left\n")
    arguments = ["--prompts", str(tmp_path / "one.txt"), "--steps", "1"]
    said = do("evaluate", "run", str(out), *arguments, "-o", str(tmp_path / "judged"))
    assert "1 of 1 clips" in said
    told = json.loads((tmp_path / "judged" / "evaluate.json").read_text())
    assert told["score"]["color"]["total"] == 1
    assert told["curves"]["finding"]["sentence"] in said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-m x --prompts all", "prompts -m x --prompts all"),
        ("-m x --steps 4", "prompts -m x --steps 4"),
        ("-m x --steps 1,2", "steps -m x --steps 1,2"),
        ("--num-inference-steps=1,2 -m x", "steps --steps=1,2 -m x"),
        (
            "-m x --guidance-scale 4 --steps=4 --prompts a,b",
            "prompts -m x --guidance 4 --steps=4 --prompts a,b",
        ),
        ("-m x --sizes 9x64x64 --steps 4", "sizes -m x --sizes 9x64x64 --steps 4"),
        ("--modes -m x", "modes -m x"),
        ("-m x --run y -o z", "run -m x y -o z --prompts 72"),
        ("-m x --run y --prompts all", "run -m x y --prompts all"),
        ("--videos=y -o z", "videos y -o z"),
    ],
)
def test_the_old_form_of_evaluate_means_one_of_its_commands(old: str, new: str) -> None:
    assert " ".join(new_form(old.split())) == new


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (["--videos", "my clips"], "minisora evaluate videos 'my clips'", "my clips is not a folder"),
        (
            ["-m", "x", "--steps", "1,2", "--modes"],
            "minisora evaluate modes -m x --steps 1,2",
            "Invalid value for",
        ),
    ],
)
def test_the_old_form_of_evaluate_still_works_and_names_the_new_one(
    old: list[str],
    new: str,
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("evaluate", *old, capsys=capsys, monkeypatch=monkeypatch)
    word, reason = err.strip().splitlines()
    assert code == 2
    assert word.startswith("note: ")
    assert f" is now '{new}'; the old form goes" in word
    assert error in reason


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


@pytest.mark.parametrize("data", [True, False])
def test_a_run_that_was_begun_goes_on_with_its_own_config(
    data: bool,
    tiny_config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_folder, taken = tmp_path / "run", []
    run_folder.mkdir()
    shutil.copy(tiny_config_file, run_folder / "config.yaml")
    monkeypatch.setattr("minisora.training.stages.train_dit", lambda config, *_: taken.append(config))
    more = ("--data", str(tmp_path)) if data else ()
    run("train", "dit", "--out", str(run_folder), *more, capsys=capsys, monkeypatch=monkeypatch)
    assert taken[0].dit == load(str(tiny_config_file)).dit


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


def test_a_result_in_a_folder_with_brackets_is_named_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("out[v2]/a.mp4", "out[/b]/:dog:.mp4"):
        arguments = ["sample", "-p", "a red circle moving left", "--steps", "1", "--frames", "1", "-o", out]
        code, told, _ = run(*arguments, capsys=capsys, monkeypatch=monkeypatch)
        assert code == 0
        assert told.splitlines() == [
            f"wrote {Path(out).with_suffix(kind)}" for kind in (".mp4", ".gif", ".png")
        ]
        assert Path(out).is_file()


def test_a_suggested_config_is_all_that_is_printed_and_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minisora.config import load

    Image.new("RGB", (900, 1600)).save(tmp_path / "a.png")
    said = {"capsys": capsys, "monkeypatch": monkeypatch}
    code, _, err = run("data", "check", str(tmp_path), "--suggest", **said)
    assert (code, err.count("nothing can be suggested"), err.count("\n")) == (2, 1, 1)
    (tmp_path / "a.txt").write_text("black")
    code, text, err = run("data", "check", str(tmp_path), "--suggest", **said)
    assert (code, err) == (0, "")
    (tmp_path / "mine.yaml").write_text(text)
    clip = load(tmp_path / "mine.yaml").clip
    assert (clip.frames, clip.height, clip.width) == (1, 80, 48)


def test_a_data_folder_may_have_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minisora.cli.options import load_config

    for name in ("🐶 é", "[/b]: #x", "caf\udce9", "a\\b'\"", "x" * 200 + " y" * 20):
        assert load_config("toy", None, tmp_path / name).data.path == tmp_path / name
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    (folder / "a\udce9\x1b[31m.mp4").write_bytes(b"no video")
    report = tmp_path / "report.json"
    code, told, err = run(
        "data", "check", str(folder), "--json", str(report), capsys=capsys, monkeypatch=monkeypatch
    )
    assert (code, err) == (1, "")
    assert r"a\udce9\x1b[31m.mp4: cannot be decoded" in told
    assert json.loads(report.read_text())["dropped"].keys() == {"a\udce9\x1b[31m.mp4"}
    code, _, err = run("data", "check", f"{folder}/\x1b]no", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, err.isprintable()) == (2, False)  # but for the line's end
    assert err[:-1].isprintable()


def test_results_go_to_a_folder_with_a_name_of_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights could be written there and never be read."""
    code, _, err = run("train", "-o", f"{tmp_path}/caf\udce9", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert err == rf"error: {tmp_path}/caf\udce9 is not UTF-8 text: choose another name for the folder" + "\n"
    assert not list(tmp_path.iterdir())
