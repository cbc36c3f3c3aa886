"""`evaluate --sizes`: every size is judged, and one that cannot be sampled is refused before any work."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from minisora.errors import UserError
from minisora.evaluate.sizes import parse_sizes, run_sizes


def test_every_size_is_sampled_judged_and_shown(tiny_run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle moving left\na small blue square moving up\n")
    sizes = parse_sizes("9x32x32, 5x32x48")
    model, said = tiny_run / "model", str(prompts)
    run_sizes(
        tmp_path, Console(quiet=True), model=model, sizes=sizes, prompts=said, steps=1, samples_per_prompt=2
    )
    points = json.loads((tmp_path / "sizes.json").read_text())["points"]
    assert [point["size"] for point in points] == [[9, 32, 32], [5, 32, 48]]
    assert all(point["score"]["all_right"]["total"] == 4 for point in points)
    assert (tmp_path / "sizes.png").stat().st_size > 1000


@pytest.mark.parametrize("text", ["64x64", "17x64xa", "17x64x0", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="write FRAMESxHEIGHTxWIDTH"):
        parse_sizes(text)


def test_a_size_that_does_not_fit_is_refused_before_sampling(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="height 50 does not fit"):
        run_sizes(tmp_path, Console(quiet=True), model=tiny_run / "model", sizes=[(9, 32, 32), (9, 50, 32)])
    assert not (tmp_path / "sizes.json").exists()
