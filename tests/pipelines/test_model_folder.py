"""Model folders: a small one to pass on samples as the large one does, and shipped ones go by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from minisora.errors import UserError
from minisora.evaluate.judge import judge
from minisora.pipelines import model_folder
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


def test_an_export_replaces_nothing_but_an_export(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "run" / "model"
    shutil.copytree(tiny_run / "model", model)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    (mine / "list.json").write_text("[]")
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "note").write_text("")
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(mine)
    for out, said in (
        (model, "holds the model itself"),
        (tmp_path / "link", "holds the model itself"),
        (model.parent, "holds the model itself"),
        (model / "small", "lies in the model folder"),
        (Path(), "is where you are"),
        (tmp_path / "note", "is a file"),
    ):
        with pytest.raises(UserError, match=said):
            export_model(model, out)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"mine holds 'README\.md' and is no earlier export"):
        export_model(model, mine)
    with pytest.raises(UserError, match="holds 'dit' and is no earlier export"):
        export_model("toy", model)  # a trained model has no card
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == held


def test_an_earlier_export_is_replaced_whole_or_stays(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    export_model(tiny_run / "model", out, made_by="first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folder, "_forget_origin", full)
    with pytest.raises(UserError, match="cannot write .*small: No space left"):
        export_model(tiny_run / "model", out, made_by="second")
    monkeypatch.undo()
    assert "first" in (out / "README.md").read_text()
    export_model(tiny_run / "model", out, made_by="second")
    assert "second" in (out / "README.md").read_text()
    assert [item.name for item in tmp_path.iterdir()] == ["small"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"also holds 'notes\.txt', which would be lost"):
        export_model(tiny_run / "model", out)
    assert (out / "notes.txt").read_text() == "mine"


def test_what_the_card_cannot_show_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    for name, text in (("evaluate.json", "[]"), ("others.json", "{}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(
            UserError, match=f"{name} holds no scores that the card shows: give evaluate.json"
        ):
            export_model(tiny_run / "model", tmp_path / "out", [tmp_path / name])
    (tmp_path / "evaluate.json").write_text('{"x": 1}')
    with pytest.raises(UserError, match="evaluate.json are not of minisora evaluate"):
        export_model(tiny_run / "model", tmp_path / "out", [tmp_path / "evaluate.json"])
    assert not (tmp_path / "out").exists()


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


def test_an_export_to_a_full_disk_is_one_line_and_the_earlier_export_stays(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    export_model(tiny_run / "model", small)
    before = {each: each.read_bytes() for each in small.rglob("*") if each.is_file()}

    def full(pipeline: object, folder: Path, **options: object) -> None:
        folder.mkdir()
        (folder / "model_index.json").write_text("{")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model_folder.MiniSoraPipeline, "save_pretrained", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left.*free space or choose another --out"):
        export_model(tiny_run / "model", small)
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before


@pytest.mark.parametrize(
    ("file", "key", "value", "told"),
    [
        ("model_index.json", "sigma_shift", [1.5], r"sigma_shift = \[1.5\] must be a number above 0"),
        ("model_index.json", "default_size", [9, 32], "must be frames, height and width"),
        ("model_index.json", "default_steps", True, "default_steps has True"),
        ("vae/config.json", "widths", [16, "inf"], "cannot be read"),
        ("vae/config.json", "blocks_per_level", "x", "cannot be read"),
    ],
)
def test_a_setting_of_another_kind_is_one_line(
    file: str, key: str, value: object, told: str, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "model", tmp_path / "model")
    place = tmp_path / "model" / file
    place.write_text(json.dumps(json.loads(place.read_text()) | {key: value}))
    with pytest.raises(UserError, match=told):
        load_pipeline(tmp_path / "model", "cpu")


@pytest.mark.parametrize("index", ["[]", "3", "[" * 100_000])
def test_an_index_that_is_no_index_is_one_line(index: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(UserError, match=r"not a MiniSoraPipeline|not JSON"):
        load_pipeline(tmp_path, "cpu")
