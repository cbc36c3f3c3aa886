"""Names that only a file system takes: bytes that are no UTF-8, and what rich would read as markup."""

import io
import os
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from minisora.config import Config, load
from minisora.data.video.write_video import write_video
from minisora.training.progress import StepProgress
from minisora.training.stages import train_dit, train_vae

WEIGHTS = "model/dit/diffusion_pytorch_model.safetensors"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips, the names of two and of their folder in Latin-1, captions that look like markup."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path / "clips [b]") + b"\xe9"))
    for number, name in enumerate((b"a.mp4", b"caf\xe9.mp4", b"[red] \xff.mp4")):
        grey = torch.linspace(-1, 1, 12).view(1, 12, 1, 1).expand(3, 12, 32, 32) * (0.5 + number / 4)
        write_video(folder / "next.mp4", grey, 8)
        video = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        (folder / "next.mp4").rename(video)
        video.with_suffix(".txt").write_text("grey [/b]")
    return folder


def test_a_folder_of_any_names_trains_and_resumes_to_the_same(
    clips: Path, tiny_config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(tiny_config_file).replace(**{"data.source": "folder", "data.path": clips})
    whole, stopped = tmp_path / "whole", tmp_path / "run[/b][red]"
    for run in (whole, stopped):
        said = Console(file=io.StringIO(), width=200)
        if run is stopped:
            with monkeypatch.context() as patch:
                patch.setattr(StepProgress, "update", _stop_at_step(7))
                for train in (train_vae, train_dit):
                    with pytest.raises(KeyboardInterrupt):
                        train(config, run, said)
                    patch.undo()
                    train(config, run, said)
                    patch.setattr(StepProgress, "update", _stop_at_step(7))
            assert isinstance(said.file, io.StringIO)
            assert f"from {run}/vae/checkpoints" in said.file.getvalue()
        else:
            train_vae(config, run, said)
            train_dit(config, run, said)
    assert load_file(whole / WEIGHTS).keys() == load_file(stopped / WEIGHTS).keys()
    for name, weight in load_file(whole / WEIGHTS).items():
        assert torch.equal(weight, load_file(stopped / WEIGHTS)[name]), name
    kept: Config = load(stopped / "config.yaml")
    assert kept.data == config.data
    assert kept.data.path == clips


def _stop_at_step(last: int):  # type: ignore[no-untyped-def]
    update = StepProgress.update

    def stop(self: StepProgress, step: int, *more: float | None, **named: float | None) -> None:
        update(self, step, *more, **named)
        if step == last:
            raise KeyboardInterrupt

    return stop
