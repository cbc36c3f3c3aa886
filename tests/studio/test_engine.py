"""The models of the studio: what they offer, what that costs, and that what is made is what the recipe makes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minisora.config import Config
from minisora.errors import UserError
from minisora.flops.count_closed_form import decode_terms, dit_terms, text_terms, total
from minisora.flops.ledger import video_cost
from minisora.pipelines import remake as remake_module
from minisora.pipelines.recipe import MODES, Recipe, pack_mask
from minisora.pipelines.remake import remake
from minisora.studio.engine import PipelineEngine
from minisora.studio.job_cost import costs
from minisora.studio.job_plan import plan
from minisora.studio.job_store import JobStore
from minisora.studio.worker import work_one


@pytest.fixture(scope="module")
def engine(tiny_run: Path) -> PipelineEngine:
    return PipelineEngine({"mine": tiny_run / "model"})


def test_a_video_forms_and_is_what_its_recipe_makes(
    engine: PipelineEngine, tiny_run: Path, store: JobStore, tmp_path: Path
) -> None:
    facts = engine.facts("mine")
    frames, height, width = facts["default_size"]
    assert frames in facts["lengths"]
    assert [height, width] == facts["sizes"][0]
    assert "red" in facts["words"]
    request = {
        "model": "mine", "prompt": "a red circle", "size": [5, 32, 32], "steps": 4, "guidance": 3.0, "seed": 3,
        "scheduler": "euler", "mode": "sample",
    }  # fmt: skip
    (number,) = store.add_jobs([request], 4)
    seen: list[bytes] = []
    tell = store.tell_step
    store.tell_step = lambda job, step, preview=None: (seen.append(preview), tell(job, step, preview))  # type: ignore
    assert work_one(store, engine)
    job, clip = store.job(number), store.clip(number)
    assert job is not None
    assert job["error"] is None
    assert clip is not None
    assert (clip["frames"], clip["height"], clip["width"]) == (5, 32, 32)
    fixed, each = costs(engine._model("mine")[0], 5, 32, 32)["guided"]
    assert clip["flops"] == fixed + 4 * each
    assert Image.open(store.clip_file(number, ".png")).size == (32, 32)
    # At least the first step is shown: some frames side by side.
    assert seen[0] is not None
    (tmp_path / "strip.png").write_bytes(seen[0])
    assert Image.open(tmp_path / "strip.png").size == (4 * 32, 32)

    again = tmp_path / "again.mp4"
    remake(store.clip_file(number, ".mp4"), again, tiny_run / "model")
    assert again.read_bytes() == store.clip_file(number, ".mp4").read_bytes()

    (strange,) = store.add_jobs([{**request, "prompt": "xyzzy"}], 4)
    work_one(store, engine)
    failed = store.job(strange)
    assert failed is not None
    assert failed["state"] == "failed"
    assert "xyzzy" in failed["error"]


@pytest.mark.parametrize(
    "more",
    [
        {"mode": "sample"},
        {"mode": "sample", "guidance": 1.0},
        {"mode": "extend", "guidance": 1.0},
        {"mode": "keyframes", "keyframes": (0, 8, 0), "later": ("a red square",)},
        {"mode": "long", "later": ("a red square", "a blue circle")},
        {"mode": "inpaint", "mask": pack_mask([[row > 20 for _ in range(32)] for row in range(32)])},
        {"mode": "restyle", "strength": 0.7, "steps": 5},
        {"mode": "restyle", "strength": 0.9, "source": "a red circle", "steps": 5, "guidance": 20.0},
    ],
    ids=["sample", "unguided", "extend", "keyframes", "long", "inpaint", "noised", "flow edit"],
)
def test_a_plan_has_the_passes_and_steps_that_are_taken(
    engine: PipelineEngine, tmp_path: Path, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = engine.facts("mine")
    pipeline, weights = engine._model("mine")
    first = Recipe("mine", weights, "a red circle", (9, 32, 32), 4, 3.0, 7)
    count = len(more.get("keyframes", ())) or MODES[more["mode"]].least
    recipe = replace(first, prompt="a blue circle", **more, parents=(first,) * count)
    file = tmp_path / "first.mp4"
    remake_module.write(file, remake_module.make(pipeline, first, progress=False), first, 8.0)
    rows: list[int] = []
    steps: list[int] = []
    forward = pipeline.dit.forward

    def counted(x: Any, *arguments: Any) -> Any:
        rows.append(len(x))
        return forward(x, *arguments)

    monkeypatch.setattr(pipeline.dit, "forward", counted)
    remake_module.make(
        pipeline, recipe, [file] * count, progress=False, on_step=lambda step, *_: steps.append(step)
    )
    planned, flops = plan(facts, recipe.to_dict())
    assert planned == len(steps)
    assert steps == list(range(planned))
    fixed = facts["costs"]["9x32x32"]["plain" if recipe.guidance == 1 else "guided"][0]
    clips = len(recipe.prompts) if recipe.mode in ("keyframes", "long") else 1
    assert flops == clips * fixed + sum(rows) * facts["costs"]["9x32x32"]["plain"][1]


def test_the_cost_is_that_of_the_config_it_was_trained_with(
    tiny_config: Config, engine: PipelineEngine
) -> None:
    """The closed form agrees with what is counted (tests/flops); here, that it is asked about the same model."""
    pipeline, _ = engine._model("mine")
    frames, height, width = pipeline.config.default_size
    text = tiny_config.text.replace(max_tokens=pipeline.text_encoder.config.max_tokens)  # type: ignore[union-attr]
    _, *grid = pipeline.latent_shape(frames, height, width)
    size = (grid[0], grid[1], grid[2])
    macs = {
        "dit": total(dit_terms(tiny_config, size, text_width=text.width, text_tokens=text.tokens)),
        "vae_decode": total(decode_terms(tiny_config.vae, size)),
        "text_encoder": total(text_terms(text, text.tokens)),
    }
    found = costs(pipeline, frames, height, width)
    for guidance, name in ((3.0, "guided"), (1.0, "plain")):
        sample = tiny_config.sample.replace(steps=7, guidance=guidance)
        assert found[name][0] + 7 * found[name][1] == video_cost(sample, macs).flops
    assert found["guided"][1] == 2 * found["plain"][1]


def test_a_model_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a model folder"):
        PipelineEngine({"x": tmp_path}).facts("x")


def test_the_example_is_a_caption_of_words_that_the_model_knows(tiny_run: Path, tmp_path: Path) -> None:
    shown = tmp_path / "page" / "samples"
    shown.mkdir(parents=True)
    (tmp_path / "model").symlink_to(tiny_run / "model")
    captions = ["a zebra", "", "a red circle " * 9, "A red circle"]
    for number in range(len(captions)):
        (shown / f"{number:02d}.mp4").write_bytes(b"")
    clips = [{"caption": caption} for caption in captions]
    (tmp_path / "page" / "shown.json").write_text(json.dumps({"samples": {"clips": clips}}))
    assert PipelineEngine({"mine": tmp_path / "model"}).facts("mine")["example"] == "A red circle"
