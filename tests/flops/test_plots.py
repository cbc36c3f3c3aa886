"""Plots: PNG or SVG by suffix, written whole, and nothing else."""

import re
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from minisora import cli
from minisora.errors import UserError
from minisora.flops import plots
from minisora.flops.calibration import read_calibration
from minisora.flops.plots import plot_roofline, save_plot

CALIBRATION = Path(__file__).parents[2] / "benchmarks/results/calibration_zen-4_2026-11-22.json"


def test_a_roofline_has_a_mark_for_every_point_timed(tmp_path: Path) -> None:
    calibration = read_calibration(CALIBRATION)
    plot_roofline(calibration, tmp_path / "roofline.svg")
    marks = re.findall("<use ", (tmp_path / "roofline.svg").read_text())
    timed = sum(1 + (point.train is not None) for point in calibration.points)
    assert len(marks) > timed
    plot_roofline(calibration, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes()[:4] == b"\x89PNG"


def test_a_suffix_is_refused_where_it_is_none_of_a_plot(tmp_path: Path) -> None:
    for name in ("x.foo", "x"):
        with pytest.raises(UserError, match=rf"a plot is \.png or \.svg, not '{name}'"):
            save_plot(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_plot_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plots" / "share.svg"
    save_plot(Figure(), file)
    before = file.read_bytes()
    assert before.startswith(b"<?xml")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "write_whole", full)
    with pytest.raises(UserError, match=r"cannot write .*share\.svg: No space left"):
        save_plot(Figure(), file)
    assert file.read_bytes() == before


def test_the_command_draws_the_reports_figure_of_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "share.svg"
    tiny = ("dit.width=32", "dit.depth=1", "dit.heads=2", "vae.widths=[8,8]", "clip.frames=5")
    settings = [argument for each in tiny for argument in ("-s", each)]
    monkeypatch.setattr(sys, "argv", ["minisora", "flops", *settings, "--plot", str(file)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    for kind in ("full", "divided", "factorised"):
        assert f'id="share-{kind}"' in file.read_text()
