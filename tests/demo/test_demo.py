"""The demo, end to end on a tiny config: a whole page, resumed without training again."""

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from minisora.config import Config, override
from minisora.data.video.read_video import read_video
from minisora.data.video.write_video import write_video
from minisora.demo import time_limit
from minisora.demo.page_pieces import counts_of
from minisora.demo.run_demo import DemoPage, Record, _calibrate, _within, run_demo, write_page
from minisora.errors import UserError
from minisora.flops.calibration import read_calibration
from minisora.flops.device import device_words
from minisora.training.minutes import Pace


@pytest.mark.slow
def test_the_demo_makes_a_self_contained_page_and_resumes(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisora.demo.run_demo._PASSES", 0.1)
    page = run_demo(tiny_config, tmp_path, Console(quiet=True))
    html = page.read_text()
    assert html.count('poster="data:image/png;base64,') == 72 + 6
    assert html.count("data:video/mp4;base64,") == 72 + 6  # every prompt, and the reconstructions
    videos = sorted((tmp_path / "samples").glob("*.mp4"))
    assert len({video.read_bytes() for video in videos}) > 1
    for video in videos:
        assert base64.b64encode(video.read_bytes()).decode() in html, video.name
    assert read_video(videos[0], frames=9, height=32, width=32, fps=8).isfinite().all()
    assert html.count("<svg") == 2
    assert 'src="http' not in html
    assert 'href="http' not in html
    assert 'href="report/report.html"' in html
    for name in ("report/report.html", "model/model_index.json", "metrics.jsonl", "demo.json", "config.yaml"):
        assert (tmp_path / name).is_file()
    calibration = (tmp_path / "calibration.json").read_bytes()
    machine = json.loads(calibration)["device"]["name"]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["measured_here"]["file"] == "calibration.json"
    assert all(share > 0 for share in report["measured_here"]["best_mfu"].values())
    assert report["claims"]["sora_compute_per_video"]["measured"] > 0
    assert report["machines"][0]["name"] == machine
    # What a demo that goes on does again: not the report, which has tests of its own.
    monkeypatch.setattr("minisora.demo.run_demo.build_report", lambda *_, **__: None)
    monkeypatch.setattr("minisora.demo.run_demo.write_report", lambda _, out: out / "report.html")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    sample = (tmp_path / "samples" / "00.mp4").stat().st_mtime_ns
    run_demo(tiny_config, tmp_path, Console(quiet=True))
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert (tmp_path / "samples" / "00.mp4").stat().st_mtime_ns == sample
    assert (tmp_path / "calibration.json").read_bytes() == calibration
    # A damaged one is taken anew.
    taken = read_calibration(tmp_path / "calibration.json")
    monkeypatch.setattr("minisora.demo.run_demo.calibrate", lambda **_: taken)
    (tmp_path / "calibration.json").write_text("{}")
    _calibrate(tmp_path / "calibration.json", Record.open(tmp_path / "demo.json"), Console(quiet=True))
    assert read_calibration(tmp_path / "calibration.json").points


def test_a_slow_machine_takes_fewer_steps_and_goes_on_with_them(
    tiny_run: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run / "vae", run / "vae")
    config = override(tiny_config, ["train_dit.steps=2200"])
    monkeypatch.setattr(time_limit, "time_clips", lambda *_: (1.0, 40.0))
    monkeypatch.setattr(time_limit, "step_and_rest", lambda *_: (0.2, 10.0))
    said = Console(file=io.StringIO(), width=300)

    paces: list[Pace | None] = []

    def within(vae_seconds: float, longest: float | None, record: Record) -> int:
        record.values["seconds"] = {"vae": vae_seconds}
        changed, pace = _within(config, run, record, said, longest, now=150.0)
        paces.append(pace)
        return changed.train_dit.steps

    # A fast machine, or one that may take as long as it likes: the config's, and nothing is timed.
    for seconds, longest in ((60.0, 10.0), (140.0, None)):
        assert within(seconds, longest, Record(run / "fast.json", {})) == 2200
    assert paces == [None, None]
    assert not said.file.getvalue()  # type: ignore[attr-defined]
    assert not (run / "trial").exists()
    # What a killed command left is not gone on from.
    (run / "trial" / "dit" / "checkpoints").mkdir(parents=True)
    (run / "trial" / "metrics.jsonl").write_text("{")
    record = Record(run / "demo.json", {})
    steps = within(140.0, 10.0, record)
    # 600 s, less what has passed, encoding, what is around the steps, and all that comes after them.
    assert steps == int((600 - 150 - 40 - 10 - 8 - 25 - 70) / 0.2)
    assert f"2,200 steps of the DiT would make it 12 minutes here: {steps:,} are taken, for 10." in (
        said.file.getvalue()  # type: ignore[attr-defined]
    )
    assert not (run / "trial").exists()
    # Slower than it was timed: fewer, and the run goes on with these, but half of the config's in any case.
    pace = paces[-1]
    assert pace is not None
    monkeypatch.setattr("minisora.training.minutes.elapsed", lambda: pace.end - 400)
    assert pace(100) == steps
    monkeypatch.setattr("minisora.training.minutes.elapsed", lambda: pace.end - 370)
    steps = pace(200)
    assert steps == 200 + int(370 / 0.3)
    monkeypatch.setattr("minisora.training.minutes.elapsed", lambda: pace.end - 1)
    assert pace(300) == 1100
    assert Record.open(run / "demo.json").values["limit"] == {
        "minutes": 10.0, "steps": 1100, "asked": 2200,
    }  # fmt: skip
    # However slow: half of them are taken, or there would be nothing to see.
    monkeypatch.setattr(time_limit, "step_and_rest", lambda *_: (0.6, 10.0))
    assert within(140.0, 10.0, Record(run / "slow.json", {})) == 1100
    assert "would make it 27 minutes here: 1,100 are taken, for 16." in said.file.getvalue()  # type: ignore[attr-defined]
    # A run goes on as it began, however fast it is now; all of its steps, or more, are taken if they are asked for.
    assert within(1.0, 10.0, Record.open(run / "demo.json")) == 1100
    longer = override(config, ["train_dit.steps=3000"])
    changed, pace = _within(longer, run, Record.open(run / "demo.json"), said, 10.0, now=150.0)
    assert (changed.train_dit.steps, pace) == (3000, None)
    assert within(1.0, None, Record.open(run / "demo.json")) == 2200
    (run / "dit").mkdir()
    assert within(140.0, 10.0, Record(run / "old.json", {})) == 2200


def test_a_run_of_another_config_is_refused(tiny_run: Path, tiny_config: Config) -> None:
    with pytest.raises(UserError, match="trained with vae.latent_channels=4, now it is 8"):
        run_demo(override(tiny_config, ["vae.latent_channels=8"]), tiny_run, Console(quiet=True))


def test_other_data_and_a_damaged_record_are_refused_before_any_work(
    tiny_config: Config, tmp_path: Path
) -> None:
    other = override(tiny_config, ["data.source=folder", "data.path=clips"])
    with pytest.raises(UserError, match="moving shapes, not data.source=folder: use minisora train"):
        run_demo(other, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run").exists()
    for damaged in ("{", "[]"):
        (tmp_path / "demo.json").write_text(damaged)
        with pytest.raises(UserError, match=r"demo.json .*: delete it, and it is measured again"):
            run_demo(tiny_config, tmp_path, Console(quiet=True))
    assert [item.name for item in tmp_path.iterdir()] == ["demo.json"]


def test_counts_are_told_in_a_unit_that_fits_all_of_them() -> None:
    text, unit = counts_of(62_780_000)
    assert unit == "M"
    assert [text(n) for n in (62_780_000, 125_560_000, 430_000, 900, 0)] == [
        "62.78", "125.56", "0.43", "0.0009", "0.00",
    ]  # fmt: skip
    text, unit = counts_of(999)
    assert (text(999), text(2), unit) == ("999", "2", "")
    text, unit = counts_of(5.2e12)
    assert (text(5.2e12), text(4e9), unit) == ("5.200", "0.004", "T")


def test_a_machine_is_named_by_its_processor_and_a_thread_alone_is_one() -> None:
    facts = {"type": "cpu", "name": "Some CPU", "threads": 1, "torch": "2.9"}
    assert device_words(facts) == "Some CPU, 1 thread, torch 2.9"
    assert device_words(facts | {"threads": 2}) == "Some CPU, 2 threads, torch 2.9"
    assert device_words({"type": "meta", "name": None, "torch": "2.9"}) == "meta, torch 2.9"


def test_the_page_shows_names_and_prompts_as_they_are(tiny_config: Config, tmp_path: Path) -> None:
    rate = {"right": 3, "total": 4, "share": 0.75}
    scores = dict.fromkeys(("color", "motion", "shape", "all_right", "whole", "permanence", "light"), rate)
    hostile = "<script>alert(1)</script> </pre> {{ 7 * 7 }} & \udce9"
    config = override(tiny_config, ["data.source=folder", "data.path='<script>alert(2)</script>'"])
    write_video(tmp_path / "a.mp4", torch.zeros(3, 2, 16, 16), 8)
    page = write_page(
        tmp_path / "page.html",
        DemoPage(
            config=config,
            asked=config.train_dit.steps + 1000,
            seconds={"vae": 1.0, "dit": 1.0},
            metrics=[{"stage": stage, "step": 1, "psnr": 1.0, "loss": 1.0} for stage in ("vae", "dit")],
            vae={"psnr": 1.0, "worst_psnr": 1.0, "num_clips": 1},
            score=scores,
            kinds={"wall": scores, "light": scores},
            judge={"rendered": scores, "reconstructed": scores},
            report=f"javascript:{hostile}",
            samples=[
                ({"prompt": hostile, "right": dict.fromkeys(scores, True), "whole": True}, tmp_path / "a.mp4")
            ],
            pairs=[tmp_path / "a.mp4"],
            flops={"forward": {"macs": 1, "flops": 2, "by_group": {hostile: 1}}},
            machine=hostile,
            day=hostile,
        ),
    )
    html = page.read_text(encoding="utf-8")
    steps = config.train_dit.steps
    assert f"For want of time {steps:,} of the {steps + 1000:,} steps of the DiT." in html
    # Its own, which plays videos while they are seen and honours a wish for no motion.
    assert html.count("<script") == 1
    assert "autoplay" not in html
    assert "script-src &#39;sha256-" in html or "script-src 'sha256-" in html
    # Marks have a line of their own; nothing is counted as 0.000.
    assert '<span class="marks"><b class="right">C✓</b>' in html
    assert html.count("aria-label=") == html.count("<video") + html.count("<svg")
    assert "<td>1</td><td>2</td><td>100%</td>" in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt; &lt;/pre&gt; {{ 7 * 7 }} &amp; \\udce9") == 6
    assert "path: &lt;script&gt;alert(2)&lt;/script&gt;" in html
