"""The page of a run: what it holds, that it needs nothing else, and that no training ends by it."""

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from minisora.cli import main
from minisora.config import Config
from minisora.data.clips import ClipDataset
from minisora.demo import run_page
from minisora.demo.page_pieces import columns, learning_curve, side_by_side
from minisora.demo.run_page import LivePage, write_page
from minisora.demo.shown_clips import chosen, error_map
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.training.stages import train_dit, train_vae

QUIET = Console(quiet=True)
HOSTILE = "<script>alert(1)</script> \"' {{ 7 * 7 }} </style> \udce9"


@pytest.fixture(scope="module")
def paged(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its page; tests copy it before they change it."""
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("paged") / "mine"))
    write_page(run)
    return run


@pytest.fixture
def run(paged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(paged, tmp_path / "run"))


def html_of(run: Path) -> str:
    return (run / "index.html").read_text(encoding="utf-8")


def test_the_page_holds_samples_copies_curves_and_settings_and_nothing_of_elsewhere(paged: Path) -> None:
    html = html_of(paged)
    shown = json.loads((paged / "page" / "shown.json").read_text())
    assert len(shown["reconstructions"]["clips"]) == 6
    assert 1 <= len(shown["samples"]["clips"]) <= 8
    clips = [*shown["reconstructions"]["clips"], *shown["samples"]["clips"]]
    assert html.count('<video src="data:video/mp4;base64,') == len(clips)
    assert html.count('poster="data:image/png;base64,') == len(clips)
    assert html.count('preload="none"') == len(clips)
    for clip in clips:
        assert f'<b class="caption" dir="auto" title="{clip["caption"]}">{clip["caption"]}</b>' in html
    assert all("nearest" in clip and clip["distance"] > 0 for clip in shown["samples"]["clips"])
    for heading in ("Samples", "What the VAE keeps", "Learning curves", "What was trained"):
        assert f"<h2>{heading}" in html
    for curve in ("VAE: PSNR (dB)", "VAE: loss", "DiT: loss"):
        assert f"<figcaption>{curve}</figcaption>" in html
    assert "latent_channels: 4" in html
    for elsewhere in ("http://", "https://", "<link", "@import", 'http-equiv="refresh"'):
        assert elsewhere not in html
    assert "prefers-color-scheme: dark" in html
    assert "prefers-reduced-motion" in html


def test_clips_are_measured_once_for_a_model_and_the_page_is_the_same_without_their_models(run: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (run / "page").rglob("*.*")}
    write_page(run)
    assert {file: file.stat().st_mtime_ns for file in (run / "page").rglob("*.*")} == before
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "vae")
    write_page(run)
    assert html_of(run).count("<video") == html_of(run).count("</video>") > 6


def test_a_model_that_cannot_be_read_is_told_and_costs_no_page(run: Path) -> None:
    (run / "vae" / "model" / "config.json").write_text("{}")
    (run / "index.html").unlink()
    told = io.StringIO()
    write_page(run, console=Console(file=told, width=300))
    assert "the page shows what was kept of clips: VideoVAE" in told.getvalue()
    assert html_of(run).count("<video") > 6


def test_the_verdict_the_advice_and_the_numbers_of_an_evaluation_are_shown(run: Path) -> None:
    evaluation = {
        "verdict": {"state": "good", "sentence": "good: it moves", "not_told": ["how fast"]},
        "advice": ["record more clips"],
        "vae": {
            "psnr": 31.24,
            "psnr_moving": 25.1,
            "psnr_moving_still": 13.1,
            "by_caption": {"a cat": {"real": 0.0312, "copies": 0.03}},
        },
        "motion": {"ratio": 0.93, "activity": {"real": 0.02, "samples": 0.018}},
        "captions": {
            "samples": 0.98,
            "real": 1.0,
            "copies": None,
            "by_caption": {"a cat": {"samples": 0.75}},
        },
        "frechet": {"latents": {"samples": 3.0, "floor": 1.5}},
        "memorisation": {"finding": {"copies": 0.0, "unseen_copies": 0.125}},
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    html = html_of(write_page(run).parent)
    assert "<h1>Good</h1>" in html
    assert '<p class="lead">It moves</p>' in html
    for line in ("<li>record more clips</li>", "<li>how fast</li>"):
        assert line in html
    for fact in ("31.2 dB", "25.1 dB", "98%", "0.93×", "2×", "0%"):
        assert f"<b>{fact}</b>" in html
    row = "<td>3.12%</td><td>3.00%</td><td></td><td>75%</td>"
    assert f'<span class="caption" dir="auto" title="a cat">a cat</span></th>{row}</tr>' in html
    assert "a still picture: 13.1 dB" in html
    assert "not judged yet" not in html
    # Of the model that the samples are of, or of one before it.
    key = json.loads((run / "page" / "shown.json").read_text())["samples"]["key"]
    for of, judged in ((key.rsplit("-", 1)[0], True), ("another-model", False)):
        (run / "evaluation.json").write_text(json.dumps(evaluation | {"settings": {"fingerprint": of}}))
        assert ("<h1>Good</h1>" in html_of(write_page(run).parent)) is judged


def test_the_plan_stands_beside_what_happened(run: Path) -> None:
    plan: dict[str, Any] = {
        "minutes": 3,
        "stages": {"vae": {"steps": 40, "seconds": 66.0}, "dit": {"steps": 12}},
    }
    plan |= {
        "expected_loss": 0.51,
        "taken": 186.0,
        "dit": {"width": 96, "depth": 5},
        "sizes": [{"width": 64}, {"width": 96}],
    }
    (run / "plan.json").write_text(json.dumps(plan))
    html = html_of(write_page(run).parent)
    assert "The plan of 3 minutes, and what happened" in html
    assert "<p>3 minutes were asked for, 3.1 were taken.</p>" in html
    assert "The DiT has width 96, depth 5, chosen of 2 sizes timed here." in html
    assert '<th scope="col">VAE</th><th scope="col">DiT</th>' in html
    for words, cells in (("steps planned", ("40", "12")), ("steps done", ("12", "12")), ("time planned", ("66 s", "")),
                         ("loss expected", ("", "0.51"))):  # fmt: skip
        assert f'<tr><th scope="row">{words}</th><td>{cells[0]}</td><td>{cells[1]}</td></tr>' in html


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"verdict": 3, "advice": {"a": 1}, "vae": [1], "captions": "x", "frechet": {"a": 1}, "minutes": "x"}',
     '{"stages": [1], "motion": {"by_caption": 3}, "memorisation": null, "samples": {"clips": [{}]}}',
     '{"stages": {"vae": 3, "other": {"steps": "many", "seconds": NaN}}}', "\x00"],
)  # fmt: skip
def test_files_that_are_cut_short_or_of_another_kind_cost_no_page(run: Path, content: str) -> None:
    for name in ("evaluation.json", "plan.json", "page/shown.json", "metrics.jsonl"):
        (run / name).write_text(content)
    assert "<h1>" in html_of(write_page(run, live=True).parent)


def test_a_run_without_text_and_one_of_images_speak_of_neither(run: Path) -> None:
    shown = json.loads((run / "page" / "shown.json").read_text())
    for part in shown.values():
        part["clips"] = [{"caption": "", "psnr": 30.0, "psnr_moving": None} for _ in part["clips"]]
    (run / "page" / "shown.json").write_text(json.dumps(shown))
    html = html_of(write_page(run, live=True).parent)
    assert "Made without a caption" in html
    assert "nothing moves" in html
    assert 'aria-label="Sample"' in html
    assert 'class="caption"' not in html
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("frames: 9", "frames: 1", 1))
    html = html_of(write_page(run, live=True).parent)
    assert "images of 32×32" in html
    assert " fps" not in html.partition("<h1>")[0]
    assert "nothing moves" not in html


@pytest.mark.parametrize(
    ("count", "most", "width"),
    [(8, 6, 4), (6, 6, 6), (6, 4, 3), (4, 3, 2), (3, 3, 3), (5, 3, 3), (72, 9, 9), (1, 4, 2), (0, 4, 2), (12, 4, 4)],
)  # fmt: skip
def test_grids_have_the_columns_that_fill_their_rows(count: int, most: int, width: int) -> None:
    assert columns(count, most, 1, 1) == f"--wide: {width}; --half: 1; --slim: 1"


def test_two_validations_are_points_with_values_and_no_line() -> None:
    rows = [{"stage": "dit", "step": step, "loss": 1 / step} for step in range(1, 101)]
    rows += [{"stage": "dit", "step": step, "val_loss": value} for step, value in ((50, 0.5123), (100, 0.25))]
    two = learning_curve(rows, "dit", "loss", "loss", "val_loss")
    assert ">0.512<" in two
    assert ">0.25<" in two
    more = learning_curve(
        [*rows, {"stage": "dit", "step": 75, "val_loss": 0.3}], "dit", "loss", "loss", "val_loss"
    )
    assert ">0.512<" not in more


def test_a_damaged_video_is_left_out(run: Path) -> None:
    before = html_of(run).count("<video")
    (run / "page" / "samples" / "00.mp4").write_bytes(b"no video")
    assert html_of(write_page(run).parent).count("<video") == before - 1


def test_what_a_user_wrote_is_text(run: Path) -> None:
    shown = json.loads((run / "page" / "shown.json").read_text())
    for part in shown.values():
        for clip in part["clips"]:
            clip |= {"caption": HOSTILE, "nearest": HOSTILE + "!"}
    (run / "page" / "shown.json").write_text(json.dumps(shown))
    tree: dict[str, Any] = {HOSTILE: {"samples": 1.0, "floor": 1.0}}
    (run / "evaluation.json").write_text(
        json.dumps(
            {
                "verdict": HOSTILE,
                "advice": [HOSTILE],
                "frechet": tree,
                "vae": {"by_caption": tree},
                HOSTILE: tree,
            }
        )
    )
    (run / "plan.json").write_text(json.dumps({"minutes": 1, "stages": {HOSTILE: {"steps": 1}}}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"stage": HOSTILE, "step": 1, HOSTILE: 1.0, "loss": 1, f"val_{HOSTILE}": 2.0}) + "\n"
        )
    other = run.rename(run.with_name("<script>alert(2)<|script>"))
    html = html_of(write_page(other, live=True).parent)
    assert html.count("<script") == 1
    assert html.count("</style>") == html.count("<style")
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "&lt;script&gt;alert(2)&lt;|script&gt;" in html
    assert "{{ 7 * 7 }}" in html


class Pages(LivePage):
    """Keeps every page that it wrote."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.written: list[str] = []

    def __call__(self, model: VideoVAE | MiniSoraPipeline, held_out: ClipDataset, step: int) -> None:
        super().__call__(model, held_out, step)
        self.written.append(html_of(self.run))


@pytest.mark.slow
def test_the_page_is_rewritten_at_each_validation_and_changes_no_number(
    tiny_config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    pages = Pages(tmp_path, tiny_config, QUIET, share=math.inf)
    train_vae(tiny_config, tmp_path, QUIET, pages)
    train_dit(tiny_config, tmp_path, QUIET, on_validate=pages)
    heads = ["VAE, step 6 of 12", "VAE, step 12 of 12", "DiT, step 6 of 12", "DiT, step 12 of 12"]
    assert len(pages.written) == len(heads)
    for html, head in zip(pages.written, heads, strict=True):
        assert head in html
        assert 'http-equiv="refresh"' in html
        assert "What the VAE keeps at step" in html
        assert ("Samples at step" in html) == ("DiT" in head)
    losses, alone = (
        [
            {k: v for k, v in json.loads(line).items() if "second" not in k and k != "mfu"}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (tmp_path, tiny_run)
    )
    assert losses == alone
    pages.finish()
    assert 'http-equiv="refresh"' not in html_of(tmp_path)
    assert "nearest training clip" in html_of(tmp_path)


@pytest.mark.slow
def test_no_trouble_with_a_page_ends_a_training(tiny_config: Config, tmp_path: Path) -> None:
    # Nothing can be written over a folder.
    (tmp_path / "index.html").mkdir(parents=True)
    told = io.StringIO()
    page = LivePage(tmp_path, tiny_config, Console(file=told, width=300), share=math.inf)
    result = train_vae(tiny_config, tmp_path, QUIET, page)
    page.finish()
    assert result.validation["psnr"] > 0
    lines = told.getvalue().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"no page written (cannot write {tmp_path / 'index.html'}:")


def test_pages_take_a_small_share_of_the_time(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    written: list[float] = []

    def write(run: Path, live: bool = False) -> None:
        written.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr(run_page.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(run_page, "write_page", write)
    monkeypatch.setattr(run_page, "show_samples", lambda *_, **__: None)
    page = LivePage(tmp_path, tiny_config, QUIET, share=0.05)
    for _ in range(100):
        page(object(), object(), 1)  # type: ignore[arg-type]
        clock[0] += 5.0
    assert len(written) == pytest.approx(0.05 * clock[0], rel=0.2)


def test_a_folder_that_is_no_run_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["minisora", "page", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} is not a run folder: it has no config.yaml; pass the --out of minisora train\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_clips_are_of_different_captions_first() -> None:
    assert chosen(["a", "a", "b", "a", "c"], 3) == [0, 2, 4]
    assert chosen(["a", "a", "b", "a"], 4) == [0, 2, 1, 3]
    assert chosen(["a", "b", "c", "d", "e", "f"], 3) == [0, 2, 4]
    assert chosen(["a"], 3) == [0]
    assert chosen([], 3) == []


def test_an_error_map_tells_what_moves_and_is_kept_from_what_is_lost() -> None:
    # A still clip of black through which a white pixel runs, kept in the first frames and lost in the others.
    video = torch.full((1, 3, 8, 4, 8), -1.0)
    for frame in range(8):
        video[0, :, frame, 2, frame] = 1.0
    copy = video.clone()
    copy[:, :, 4:] = -1.0
    shown = error_map(copy, video)
    assert shown.shape == video.shape
    kept, lost, still = shown[0, :, 0, 2, 0], shown[0, :, 6, 2, 6], shown[0, :, 0, 0, 0]
    assert kept[2] > kept[0]
    assert lost[0] > lost[2]
    assert still.tolist() == [-1.0] * 3
    assert shown.abs().max() <= 1


def test_videos_side_by_side_have_a_line_between_them() -> None:
    a, b = torch.full((3, 2, 4, 5), -1.0), torch.full((3, 2, 4, 3), 1.0)
    both = side_by_side(a, b)
    assert both.shape == (3, 2, 4, 10)
    assert both[0, 0, 0].tolist() == [-1.0] * 5 + [0.0] * 2 + [1.0] * 3


def test_a_curve_of_many_steps_is_drawn_with_few_points() -> None:
    rows = [{"stage": "dit", "step": step, "loss": 1 / step} for step in range(1, 20001)]
    svg = learning_curve(rows, "dit", "loss", "loss", "val_loss")
    assert len(svg) < 40_000
    assert "var(--accent-soft)" in svg
    assert "DiT: loss against steps" in svg
    assert learning_curve([], "dit", "loss", "loss", "val_loss").startswith("<svg")
