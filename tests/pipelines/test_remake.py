"""The bytes of a video from the recipe inside it."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from minisora import cli
from minisora.errors import UserError
from minisora.pipelines.model_folder import load_pipeline, weights_digest
from minisora.pipelines.recipe import Recipe, read_recipe
from minisora.pipelines.remake import make, remake, write


def _minisora(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["minisora", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_the_recipe_makes_the_same_bytes(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_run / "model"
    pipeline = load_pipeline(model, device="cpu")
    recipe = Recipe("mine", weights_digest(model), "a red circle", (5, 32, 32), 2, 3.0, 7, "heun")
    first, again = tmp_path / "first.mp4", tmp_path / "again.mp4"
    video = make(pipeline, recipe, progress=False)
    assert video.shape == (3, 5, 32, 32)
    write(first, video, recipe, float(pipeline.config.fps))

    assert _minisora(monkeypatch, "sample", "--recipe", first, "--model", model, "--out", again) == 0
    assert again.read_bytes() == first.read_bytes()
    assert read_recipe(again) == recipe

    # What it cannot mean is refused, before anything is made.
    for arguments, error in (
        (["--recipe", first, "--out", first, "--model", model], "which would be lost"),
        (["--recipe", first, "--seed", 3], "--seed would do nothing beside --recipe"),
        (["--recipe", first], "was made by the model 'mine': pass its folder by --model"),
    ):
        assert _minisora(monkeypatch, "sample", *arguments) == 2
        assert error in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(model, other)
    pipeline.text_encoder.norm.weight.data += 1  # type: ignore[union-attr]
    pipeline.save_pretrained(other, safe_serialization=True)
    (other / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"is not the model 'mine' that made .* \(its weights differ\)"):
        remake(first, again, other)


def test_a_step_can_end_the_sampling(tiny_run: Path) -> None:
    pipeline = load_pipeline(tiny_run / "model", device="cpu")
    recipe = Recipe("mine", "0" * 64, "a red circle", (5, 32, 32), 4, 1.0, 0)
    seen: list[float] = []

    def stop(step: int, sigma: float, latents: torch.Tensor) -> None:
        seen.append(sigma)
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(pipeline, recipe, progress=False, on_step=stop)
    assert len(seen) == 2
    assert seen[0] == 1.0
