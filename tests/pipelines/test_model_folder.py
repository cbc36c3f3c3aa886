"""Model folders: a small one to pass on samples as the large one does, and shipped ones go by name."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from minisora.errors import UserError
from minisora.evaluate.judge.verdict import judge
from minisora.pipelines import model_folder
from minisora.pipelines.model_folder import export_model, load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.shipped_models import WEIGHTS, shipped


def test_an_exported_model_is_half_the_size_and_samples_the_same(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    mib = export_model(tiny_run / "model", out, made_by="minisora train --config tiny")
    files = {path.suffix for path in out.rglob("*") if path.is_file() and path.name != "SHA256SUMS"}
    assert files <= {".safetensors", ".json", ".md", ".py"}  # nothing that unpickles
    assert [path.relative_to(out).as_posix() for path in out.rglob("*.py")] == ["pipeline.py"]
    assert not any("_name_or_path" in path.read_text() for path in out.rglob("*.json"))
    before = sum(path.stat().st_size for path in (tiny_run / "model").rglob("*.safetensors"))
    assert mib * 2**20 < 0.6 * before
    few = {"num_inference_steps": 2, "progress": False}
    whole, small = (load_pipeline(folder, "cpu") for folder in (tiny_run / "model", out))
    assert small.dit.dtype == torch.float32
    a, b = (each("a red circle moving left", **few).videos for each in (whole, small))
    assert (a - b).abs().mean() < 0.02
    assert "minisora train --config tiny" in (out / "README.md").read_text()


def test_a_spoiled_model_is_named_and_its_sums_are_those_of_sha256sum(tiny_run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_run / "model", model)
    weights = model / "dit" / "diffusion_pytorch_model.safetensors"
    assert (
        f"{hashlib.sha256(weights.read_bytes()).hexdigest()}  dit/{weights.name}\n"
        in (model / "SHA256SUMS").read_text()
    )
    data = bytearray(weights.read_bytes())
    middle = len(data) // 2
    assert any(data[middle : middle + 400])
    data[middle : middle + 400] = bytes(400)
    weights.write_bytes(data)
    with pytest.raises(UserError, match=f"{model} is damaged .dit/{weights.name} is not as SHA256SUMS says"):
        load_pipeline(model, "cpu")
    (model / "SHA256SUMS").unlink()  # a folder of an older version
    load_pipeline(model, "cpu")


def test_the_card_shows_the_scores_it_is_given(tiny_run: Path, tmp_path: Path) -> None:
    rate = {"right": 3, "total": 4, "share": 0.75, "interval": [0.3, 0.95]}
    names = ("color", "shape", "motion", "all_right", "permanence")
    (tmp_path / "evaluate.json").write_text(json.dumps({"score": dict.fromkeys(names, rate)}))
    (tmp_path / "modes.json").write_text(json.dumps({"modes": {"animate": {"motion": rate, "db": 30.0}}}))
    export_model(tiny_run / "model", tmp_path / "out", [tmp_path / "evaluate.json", tmp_path / "modes.json"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| all right | 3/4 = 75.0 % |" in card
    assert "whole" not in card  # scores of before it was measured
    scores = dict.fromkeys((*names, "whole"), rate)
    (tmp_path / "evaluate.json").write_text(json.dumps({"score": scores}))
    points = [{"size": size, "score": scores} for size in ([17, 64, 64], [1, 64, 64])]
    (tmp_path / "sizes.json").write_text(json.dumps({"points": points}))
    export_model(tiny_run / "model", tmp_path / "new", [tmp_path / "evaluate.json", tmp_path / "sizes.json"])
    new = (tmp_path / "new" / "README.md").read_text()
    assert "| whole | 3/4 = 75.0 % |" in new
    assert "| size | colour | shape | all right | whole |\n|---|---|---|---|---|\n| 17x64x64 |" in new
    assert "| animate | motion | 3/4 = 75.0 % |" in card
    with pytest.raises(UserError, match="holds no scores"):
        export_model(tiny_run / "model", tmp_path / "out", [tmp_path / "nothing.json"])


def test_the_card_shows_names_and_commands_as_they_are(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "a `<script>` *b* [c](d)"
    export_model(tiny_run / "model", out, made_by="minisora train -o `<b>`\n# no heading")
    card = (out / "README.md").read_text().splitlines()
    assert card[4] == r"# a \`\<script\>\` \*b\* \[c\](d): a minisora model of moving shapes"
    assert card[6].startswith("    minisora sample --model 'a `<script>` *b* [c](d)' --prompt")
    assert any(r"by `` minisora train -o `<b>`\n# no heading ``. It knows" in line for line in card)


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


def test_diffusers_loads_a_folder_in_a_process_that_never_imported_minisora(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))  # diffusers copies the code there
    export_model(tiny_run / "model", tmp_path / "small")
    folders = {"trained": tiny_run / "model", "exported": tmp_path / "small", "shipped": WEIGHTS / "toy"}
    few = {"num_inference_steps": 1, "num_frames": 1, "height": 32, "width": 32, "progress": False}
    script = f"""
import sys, torch
from diffusers import DiffusionPipeline
assert "minisora" not in sys.modules
folders = { {name: str(folder) for name, folder in folders.items()} }
try:
    DiffusionPipeline.from_pretrained(folders["trained"])
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
except AttributeError:
    raise AssertionError("diffusers found no pipeline")
for name, folder in folders.items():
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True).to(torch.float32)
    torch.save(pipeline("a red circle", **{few}).videos, {str(tmp_path)!r} + "/" + name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    for name, folder in folders.items():
        video = load_pipeline(folder, "cpu")("a red circle", **few).videos
        assert torch.load(tmp_path / name).equal(video), name


def test_minisora_runs_no_code_of_a_folder_and_reads_folders_without(tiny_run: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_run / "model", tmp_path / "model"))
    (model / "pipeline.py").write_text("raise SystemExit('the code of the folder ran')")
    assert MiniSoraPipeline.from_pretrained(model).config.fps == load_pipeline(model, "cpu").config.fps
    (model / "pipeline.py").unlink()
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "MiniSoraPipeline"}))
    assert MiniSoraPipeline.from_pretrained(model).config.fps == load_pipeline(model, "cpu").config.fps


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
