import json
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from minisora.config_files import config_folder
from minisora.errors import UserError
from minisora.report.video_models import DisclosedRun, VideoModel, load_models

SHIPPED = config_folder() / "report" / "video_models.yaml"


@pytest.fixture(scope="module")
def models() -> dict[str, VideoModel]:
    return {model.name: model for model in load_models()}


def run(models: dict[str, VideoModel], name: str, peak: float) -> DisclosedRun:
    return next(row for row in models[name].memories if row.peak_memory and row.peak_memory.value == peak)


def test_many_rows_say_what_memory_they_took(models: dict[str, VideoModel]) -> None:
    with_memory = {name: model.memories for name, model in models.items() if model.memories}
    assert sum(map(len, with_memory.values())) >= 80
    assert len({models[name].developer for name in with_memory}) >= 10
    for name, rows in with_memory.items():
        for row in rows:
            least, most = row.peak_bytes or (0, 0)
            # A card of today, and no part of a pipeline so small.
            assert 1e9 < least <= most < 150e9, name


def test_a_plain_value_has_the_source_of_its_row(models: dict[str, VideoModel]) -> None:
    row = run(models, "Step-Video-T2V", 77.64)
    assert row.seconds is not None
    assert row.gpu is not None
    assert (row.seconds.value, row.seconds.source) == (743, "step_readme")
    assert row.gpu.source == "assumed"


def test_gigabytes_are_both_where_nothing_says_which(models: dict[str, VideoModel]) -> None:
    assert run(models, "HunyuanVideo", 60).peak_bytes == (60e9, 60 * 2**30)
    # The code that measured divides by 1024 three times and prints GB.
    assert run(models, "CogVideoX-5B", 31.746).peak_bytes == (31.746 * 2**30, 31.746 * 2**30)


def test_weights_in_eight_bits_take_half(models: dict[str, VideoModel]) -> None:
    """What a table of both says of the weights alone: activations cancel, the VAE stays in 16 bits."""
    model = models["CogVideoX-5B"]
    wide, narrow = (run(models, model.name, peak).peak_bytes for peak in (31.746, 22.288))
    text = sum(encoder.params.value for encoder in model.encoders)
    denoiser = model.closed_form_params()
    assert wide
    assert narrow
    assert denoiser
    assert wide[0] - narrow[0] == pytest.approx(text + denoiser, rel=0.03)


def test_the_decoder_sets_the_peak_of_both_sizes(models: dict[str, VideoModel]) -> None:
    """All weights stay on the card: what stands above them is the same for 2B and 5B, so no denoiser made it."""
    above = []
    for name, peak in (("CogVideoX-2B", 24.528), ("CogVideoX-5B", 31.746)):
        model = models[name]
        assert model.vae_params
        weights = sum(encoder.params.value for encoder in model.encoders) + model.vae_params.value
        weights += model.closed_form_params() or 0
        above.append((run(models, name, peak).peak_bytes or (0, 0))[0] - 2 * weights)
    assert above[0] == pytest.approx(above[1], rel=0.03)


def test_two_clips_leave_the_denoiser(models: dict[str, VideoModel]) -> None:
    """A peak that grows with the tokens, less that growth, is the weights of the denoiser alone: text was offloaded."""
    model = models["HunyuanVideo"]
    tokens, peaks = [], []
    for peak in (60, 45):
        row = run(models, model.name, peak)
        grid = model.grid(row.clip.value if row.clip else None)
        assert grid
        tokens.append(grid[0] * grid[1])
        peaks.append(peak * 1e9)
    a_token = (peaks[0] - peaks[1]) / (tokens[0] - tokens[1])
    assert peaks[0] - a_token * tokens[0] == pytest.approx(2 * model.params.value, rel=0.04)


@pytest.mark.parametrize(("name", "before", "after"), [("7B", 57.1, 38.5), ("14B", 70.5, 51.9)])
def test_a_text_encoder_in_float32(
    models: dict[str, VideoModel], name: str, before: float, after: float
) -> None:
    model = models[f"Cosmos-1.0-Diffusion-{name}"]
    saved = [(run(models, model.name, peak).peak_bytes or (0, 0))[1] for peak in (before, after)]
    (encoder,) = model.encoders
    assert saved[0] - saved[1] == pytest.approx(4 * encoder.params.value, rel=0.03)


def test_longer_and_larger_clips_take_no_less_time(models: dict[str, VideoModel]) -> None:
    rows = [row for row in models["Open-Sora 1.2"].memories if row.clip and row.seconds]
    assert len(rows) == 12
    for before, after in pairwise(rows):
        if before.clip and after.clip and before.clip.value[1:] == after.clip.value[1:]:
            assert before.seconds
            assert after.seconds
            assert after.seconds.value > before.seconds.value


@pytest.fixture(scope="module")
def first() -> dict[str, Any]:
    """The shipped sources, and the first model alone."""
    text = SHIPPED.read_text()
    tree = yaml.safe_load(text[: text.index("  - name: Latte")])
    assert isinstance(tree, dict)
    return tree


def edited(first: dict[str, Any], tmp_path: Path, change: Any) -> Path:
    tree = deepcopy(first)
    change(tree)
    file = tmp_path / "models.yaml"
    file.write_text(json.dumps(tree))
    return file


def row(**fields: Any) -> Any:
    """A change: a first run of the first model, right but for `fields`; None takes one away."""
    right = {
        "source": "dit_paper",
        "gpu": "H100 SXM",
        "gpus": 1,
        "seconds": 2,
        "peak_memory": 3,
        "unit": "GB",
    }
    made = {key: value for key, value in (right | fields).items() if value is not None}
    return lambda tree: tree["models"][0].update(runs=[made])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["models"][0]["layers"].update(value=-3), "DiT-XL/2.*layers.value"),
        (lambda tree: tree["models"][0].update(widht=3), "widht.*did you mean 'width'"),
        (lambda tree: tree["models"][0].pop("params"), "DiT-XL/2.*params.*required"),
        (lambda tree: tree["models"][0]["layers"].pop("source"), "layers.source"),
        (lambda tree: tree["models"][0]["layers"].update(source="dit_papr"), "dit_papr.*'dit_paper'"),
        (lambda tree: tree["sources"]["dit_paper"].update(grade="good"), "sources.dit_paper: grade"),
        (lambda tree: tree.pop("models"), "'models', a list"),
        (lambda tree: tree["models"].append("Sora"), r"models\[\d+\]"),
        (row(seconds=-2), "DiT-XL/2.*runs.0.seconds.value"),
        (row(peak_memory=0), "runs.0.peak_memory.value"),
        (row(source="dit_papr"), "dit_papr.*'dit_paper'"),
        (row(source=None), "runs.0.source.*required"),
        (row(gpu="H101"), "runs.0.gpu.value"),
        (row(text="everywhere"), "runs.0.text.value"),
        (row(seconds=None, peak_memory=None, unit=None), "runs.0.*needs seconds or peak_memory"),
        (row(gpus=None), "runs.0.*seconds need gpu and gpus"),
        (row(unit=None), "runs.0.*peak_memory and unit go together"),
        (row(peak_memory=None, unit=None, counted_in="GiB"), "runs.0.*counted_in"),
        (row(samples=4), "runs.0.*of a training step"),
        (row(covers="training step"), "runs.0.*need samples"),
    ],
)
def test_a_wrong_file_is_named_by_its_field(
    first: dict[str, Any], tmp_path: Path, change: Any, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        load_models(edited(first, tmp_path, change))


def test_a_missing_file_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.yaml"):
        load_models(tmp_path / "none.yaml")
