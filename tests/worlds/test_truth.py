"""The sealed side file: exact, without pickles, and in one line where it is none."""

from pathlib import Path

import numpy as np
import pytest

from minisora.errors import UserError
from minisora.worlds.truth import Truth, read_truth, write_truth

TRUTH = Truth("pong", "sticky", ("noop", "up"), np.array([0, 1, 1]), {"ram": np.arange(8, dtype=np.uint8)})


def test_what_is_written_is_read_and_the_same_bytes_come_out(tmp_path: Path) -> None:
    write_truth(tmp_path / "a.npz", TRUTH)
    write_truth(tmp_path / "b.npz", TRUTH)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = read_truth(tmp_path / "a.npz")
    assert (read.world, read.policy, read.button_names) == ("pong", "sticky", ("noop", "up"))
    np.testing.assert_array_equal(read.buttons, TRUTH.buttons)
    assert list(read.states) == ["ram"]
    assert read.states["ram"].dtype == np.uint8


def test_what_is_no_truth_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with pytest.raises(UserError, match=r"x\.npz cannot be read"):
        read_truth(file)
    write_truth(file, TRUTH)
    whole = file.read_bytes()
    middle = len(whole) // 2
    objects = np.array([{"a": 1}], dtype=object)
    for content in (b"", b"text", whole[:middle], whole[:60] + bytes(40) + whole[100:]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.npz"):
            read_truth(file)
    np.savez(file, world="pong")
    with pytest.raises(UserError, match="no truth of a recording"):
        read_truth(file)
    # A pickle is not opened.
    np.savez(file, world=objects, policy="", button_names=["a"], buttons=[0])
    with pytest.raises(UserError, match="no truth of a recording"):
        read_truth(file)
