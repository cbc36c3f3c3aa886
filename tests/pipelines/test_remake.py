"""The bytes of a video from the recipe inside it."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minisora import cli
from minisora.data.video.read_video import read_video
from minisora.errors import UserError
from minisora.pipelines.model_folder import load_pipeline, weights_digest
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.recipe import MODES, Recipe, pack_mask, read_recipe
from minisora.pipelines.remake import make, remake, write

LOW, LOWER = (pack_mask([[row > top for _ in range(32)] for row in range(32)]) for top in (20, 28))


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


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


@pytest.mark.parametrize(
    ("more", "frames"),
    [
        ({"mode": "extend"}, 13),
        ({"mode": "prepend"}, 10),
        ({"mode": "loop"}, 16),
        ({"mode": "animate", "frame": 6}, 9),
        ({"mode": "connect"}, 22),
        ({"mode": "trim", "span": (2, 5)}, 3),
        ({"mode": "keyframes", "keyframes": (8, 0)}, 9),
        ({"mode": "keyframes", "keyframes": (8, 0, 4), "later": ("a red square",)}, 17),
        ({"mode": "long", "later": ("a red square", "a blue circle")}, 25),
        ({"mode": "restyle", "strength": 0.7}, 9),
        ({"mode": "restyle", "strength": 0.9, "source": "a red circle"}, 9),
        ({"mode": "inpaint", "mask": LOW}, 9),
        ({"mode": "inpaint", "masks": ((0, LOW), (8, LOWER))}, 9),
    ],
)
def test_a_video_made_from_others_is_made_again_from_its_file_alone(
    tiny_run: Path,
    pipeline: MiniSoraPipeline,
    tmp_path: Path,
    more: dict[str, Any],
    frames: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_run / "model"
    # It was read once; the test above has it read anew.
    monkeypatch.setattr("minisora.pipelines.remake.load_pipeline", lambda _: pipeline)
    parent = Recipe("mine", weights_digest(model), "a red circle", (9, 32, 32), 2, 3.0, 7)
    count = len(more.get("keyframes", ())) or MODES[more["mode"]].least
    recipe = replace(
        parent,
        prompt="a blue circle",
        seed=9,
        parents=(parent, replace(parent, seed=8), parent)[:count],
        **more,
    )
    files = [tmp_path / f"{number}.mp4" for number in range(count)]
    for file, each in zip(files, recipe.parents, strict=True):
        write(file, make(pipeline, each, progress=False), each, 8.0)
    steps: list[int] = []
    video = make(pipeline, recipe, files, progress=False, on_step=lambda step, *_: steps.append(step))
    assert video.shape == (3, frames, 32, 32)
    assert steps == list(range(len(steps)))
    write(tmp_path / "made.mp4", video, recipe, 8.0)
    assert remake(tmp_path / "made.mp4", tmp_path / "again.mp4", model) == recipe
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "made.mp4").read_bytes()
    if more["mode"] == "inpaint":
        before = read_video(files[0], frames=9, height=32, width=32, fps=8.0)
        assert torch.equal(video[:, :, :21], before[:, :, :21])
        assert not torch.equal(video[:, :, 21:], before[:, :, 21:])


def test_a_step_can_end_the_sampling(pipeline: MiniSoraPipeline) -> None:
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


def test_what_several_were_made_from_is_made_once(
    pipeline: MiniSoraPipeline, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_run / "model"
    monkeypatch.setattr("minisora.pipelines.remake.load_pipeline", lambda _: pipeline)
    made: list[str] = []

    def counted(pipeline: MiniSoraPipeline, recipe: Recipe, *_: object) -> torch.Tensor:
        made.append(recipe.mode)
        return torch.zeros(3, 5, 32, 32)

    monkeypatch.setattr("minisora.pipelines.remake.make", counted)
    first = Recipe("mine", weights_digest(model), "a red circle", (5, 32, 32), 2, 3.0, 7)
    looped = replace(first, mode="loop", parents=(first,))
    joined = replace(
        first, mode="connect", parents=(looped, replace(first, mode="extend", parents=(looped,)))
    )
    write(tmp_path / "joined.mp4", torch.zeros(3, 5, 32, 32), joined, 8.0)
    remake(tmp_path / "joined.mp4", tmp_path / "again.mp4", model)
    assert made == ["sample", "loop", "extend", "connect"]
