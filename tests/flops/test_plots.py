"""Plots: PNG or SVG by suffix, written whole, and nothing else."""

from pathlib import Path

import pytest

from minisora.errors import UserError
from minisora.flops import plots
from minisora.flops.plots import plot_attention_share


def test_a_suffix_is_refused_where_it_is_none_of_a_plot(tmp_path: Path) -> None:
    for name in ("x.foo", "x"):
        with pytest.raises(UserError, match=rf"a plot is \.png or \.svg, not '{name}'"):
            plot_attention_share(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_plot_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plots" / "share.svg"
    plot_attention_share(file)
    before = file.read_bytes()
    assert before.startswith(b"<?xml")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "write_whole", full)
    with pytest.raises(UserError, match=r"cannot write .*share\.svg: No space left"):
        plot_attention_share(file)
    assert file.read_bytes() == before
