"""Model folders: a small one to pass on samples as the large one does, and shipped ones go by name."""

import json
from pathlib import Path

import pytest
import torch

from minisora.errors import UserError
from minisora.evaluate.judge import judge
from minisora.pipelines.model_folder import WEIGHTS, export_model, load_pipeline, shipped


def test_an_exported_model_is_half_the_size_and_samples_the_same(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    mib = export_model(tiny_run / "model", out, made_by="minisora train --config tiny")
    files = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert files <= {".safetensors", ".json", ".md"}  # nothing that unpickles
    assert not any("_name_or_path" in path.read_text() for path in out.rglob("*.json"))
    before = sum(path.stat().st_size for path in (tiny_run / "model").rglob("*.safetensors"))
    assert mib * 2**20 < 0.6 * before
    few = {"num_inference_steps": 2, "progress": False}
    whole, small = (load_pipeline(folder, "cpu") for folder in (tiny_run / "model", out))
    assert small.dit.dtype == torch.float32
    a, b = (each("a red circle moving left", **few).videos for each in (whole, small))
    assert (a - b).abs().mean() < 0.02
    assert "minisora train --config tiny" in (out / "README.md").read_text()


def test_the_card_shows_the_scores_it_is_given(tiny_run: Path, tmp_path: Path) -> None:
    rate = {"right": 3, "total": 4, "share": 0.75, "interval": [0.3, 0.95]}
    names = ("color", "shape", "motion", "all_right", "permanence")
    (tmp_path / "evaluate.json").write_text(json.dumps({"score": dict.fromkeys(names, rate)}))
    (tmp_path / "modes.json").write_text(json.dumps({"modes": {"animate": {"motion": rate, "db": 30.0}}}))
    export_model(tiny_run / "model", tmp_path / "out", [tmp_path / "evaluate.json", tmp_path / "modes.json"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| all right | 3/4 = 75.0 % |" in card
    assert "| animate | motion | 3/4 = 75.0 % |" in card
    with pytest.raises(UserError, match="holds no scores"):
        export_model(tiny_run / "model", tmp_path / "out", [tmp_path / "nothing.json"])


def test_an_unknown_name_lists_the_shipped_models() -> None:
    with pytest.raises(UserError, match="nope is not a model folder.*shipped models: toy"):
        load_pipeline("nope")


def test_the_shipped_toy_is_small_documented_and_right() -> None:
    assert "toy" in shipped()
    folder = WEIGHTS / "toy"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20e6
    card = (folder / "README.md").read_text()
    assert "minisora train" in card
    assert "all right" in card
    pipeline = load_pipeline("toy", "cpu")
    video = pipeline("a red circle moving left", seed=0, num_inference_steps=12, progress=False).videos[0]
    seen = judge(video)
    assert (seen.color, seen.shape, seen.motion) == ("red", "circle", "left")
