"""The recorder: a folder of clips as any, a truth that fits frame by frame and that no training opens, resuming."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from minisora import cli
from minisora.config import ClipConfig
from minisora.data.clips import to_float
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.errors import UserError
from minisora.worlds import recording as recorder
from minisora.worlds.arena import BUTTONS, CHANGING, Arena, ArenaSettings
from minisora.worlds.recording import Recording, play, record, state_at
from minisora.worlds.truth import read_truth

SMALL = Recording(ArenaSettings(32, 32, movers=1, coins=2, turning=0.1), frames=9)


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_button_t_leads_from_frame_t_to_the_next() -> None:
    videos, truths, _ = play(SMALL, range(6))
    arena = Arena(SMALL.arena)
    for video, truth in zip(videos, truths, strict=True):
        assert truth.buttons.shape == (8,)
        for frame in range(8):
            after = arena.step(state_at(truth, frame), truth.buttons[frame : frame + 1])
            for name in CHANGING:
                np.testing.assert_array_equal(getattr(after, name)[0], truth.states[name][frame + 1])
            assert torch.equal(arena.render(after)[0], video[:, frame + 1])
        assert torch.equal(arena.render(state_at(truth, 0))[0], video[:, 0])


def test_a_clip_depends_on_its_number_alone() -> None:
    videos, truths, captions = play(SMALL, range(8))
    alone, truth, caption = play(SMALL, [5])
    assert torch.equal(alone[0], videos[5])
    np.testing.assert_array_equal(truth[0].buttons, truths[5].buttons)
    assert (caption[0], truth[0].policy) == (captions[5], truths[5].policy)


def test_captions_tell_nothing_of_what_is_pressed() -> None:
    told = [play(Recording(SMALL.arena, policy, frames=2), range(10))[2] for policy in ("random", "goal")]
    assert told[0] == told[1]
    assert not any(word in caption for caption in told[0] for word in (*BUTTONS, "sticky", "moving"))


def test_a_recording_is_a_folder_of_clips_and_its_truth_is_beside_it(tmp_path: Path) -> None:
    clips = record(SMALL, 5, tmp_path)
    data = FolderDataset(clips, ClipConfig(frames=9, height=32, width=32, fps=10))
    videos, truths, captions = play(SMALL, range(5))
    assert data.captions() == captions
    assert (to_float(data.clips(range(5))) - to_float(videos)).square().mean() < 4 * 10**-2.7  # 27 dB PSNR
    assert {path.suffix for path in clips.iterdir()} == {".mp4", ".csv"}
    read = read_truth(tmp_path / "truth" / "clip_000003.npz")
    np.testing.assert_array_equal(read.buttons, truths[3].buttons)
    np.testing.assert_array_equal(read.states["player"], truths[3].states["player"])


def test_a_recording_that_was_stopped_goes_on_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(SMALL, 6, tmp_path / "whole")
    write, written = recorder.write_video, []

    def stop(path: Path, *arguments: object) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recorder, "write_video", stop)
    with pytest.raises(KeyboardInterrupt):
        record(SMALL, 6, tmp_path / "stopped")
    assert len(list((tmp_path / "stopped" / "clips").glob("*.mp4"))) == 3
    monkeypatch.setattr(recorder, "write_video", write)
    seen: list[tuple[int, int]] = []
    record(SMALL, 6, tmp_path / "stopped", progress=lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    # And more of the same.
    record(SMALL, 8, tmp_path / "stopped")
    assert len(list((tmp_path / "stopped" / "truth").glob("*.npz"))) == 8


def test_another_recording_is_not_mixed_in(tmp_path: Path) -> None:
    record(SMALL, 2, tmp_path)
    with pytest.raises(UserError, match="is a recording with seed 0, not 1: choose another --out"):
        record(Recording(SMALL.arena, frames=9, seed=1), 2, tmp_path)
    with pytest.raises(UserError, match=r"already holds 'clip_000001\.mp4'"):
        record(SMALL, 1, tmp_path)
    # Its truth lies elsewhere.
    with pytest.raises(UserError, match="holds clips of a recording that .*apart knows nothing of"):
        record(Recording(SMALL.arena, frames=9, seed=1), 2, tmp_path, tmp_path / "apart")
    (tmp_path / "truth" / "recording.json").write_text("[")
    with pytest.raises(UserError, match=r"recording\.json cannot be read"):
        record(SMALL, 2, tmp_path)


@pytest.mark.parametrize("inside", ["clips", "clips/truth", "truth/../clips"])
def test_the_truth_is_never_written_among_the_clips(tmp_path: Path, inside: str) -> None:
    with pytest.raises(UserError, match="is where training reads"):
        record(SMALL, 1, tmp_path, tmp_path / inside)
    assert list(tmp_path.iterdir()) == []


# Trains on the folder argv[2], with every opening of a file below argv[3] an error; then opens one, which must fail.
TRAIN = """
import os, sys
from pathlib import Path
from rich.console import Console
sealed = os.path.realpath(sys.argv[3])
def refuse(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        assert not os.path.realpath(os.fsdecode(arguments[0])).startswith(sealed + os.sep), arguments[0]
from minisora.config import load
from minisora.training.stages import train_vae
config = load(sys.argv[1], ["train_vae.steps=2", "data.num_validation_clips=2", "data.num_clips=6", "clip.fps=10"],
              {"data.source": "folder", "data.path": sys.argv[2]})
sys.addaudithook(refuse)
train_vae(config, Path(sys.argv[4]), Console(quiet=True))
try:
    next(Path(sealed).glob("*.npz")).read_bytes()
except AssertionError:
    print("sealed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", ["clips", "."])
def test_training_opens_no_truth(tmp_path: Path, tiny_config_file: Path, given: str) -> None:
    record(SMALL, 8, tmp_path)
    # Nor could any code read it: not one byte is left as it was.
    for file in (tmp_path / "truth").iterdir():
        file.write_bytes(b"poison")
    arguments = [tiny_config_file, tmp_path / given, tmp_path / "truth", tmp_path.parent / f"run-{given}"]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "sealed"


def test_the_command_records_and_says_what_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minisora", "world", "record", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    size = ["--height", "32", "--width", "32", "--frames", "5"]
    code, out, _ = run("arena", "--out", "w", "--clips", "2", *size, "--buttons-file", "kept/apart")
    assert (code, sorted(path.name for path in (tmp_path / "w").iterdir())) == (0, ["clips"])
    assert "minisora data check w/clips" in out
    assert len(list((tmp_path / "kept" / "apart").glob("*.npz"))) == 2
    for wrong, words in (
        (["doom"], "doom"),
        (["arena", "--policy", "best"], "best"),
        (["arena", "-o", "odd", "--height", "33"], "an mp4 needs even sides, not 33x64"),
        (["arena", "-o", "w", "--buttons-file", "w/clips"], "is where training reads"),
        (["arena", "-o", "w", "--buttons-file", "kept/apart", "--clips", "2"], "frames 5, not 32"),
        (["arena", "--turning", "nan"], "--turning"),
    ):
        code, _, err = run(*wrong)
        assert (code, len(err.splitlines())) == (2, 1)
        assert words in err
