"""scripts/pictures.py: grids of videos of different lengths as one gif."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import pictures

    return pictures


def test_a_grid_lasts_as_long_as_its_longest_video_and_marks_given_frames(
    pictures: ModuleType, tmp_path: Path
) -> None:
    # A short video of frames 0 and 1 beside one of five frames; black is 0, white 1.
    short = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).expand(3, 2, 8, 8)
    long = torch.full((3, 5, 8, 8), -1.0)
    panels = [
        pictures.Panel(short, [pictures.GIVEN, pictures.MADE], "holds its last frame"),
        pictures.Panel(short, [pictures.GIVEN, pictures.MADE], "begins anew", loops=True),
        pictures.Panel(long, [pictures.MADE] * 5, "long"),
    ]
    pictures.write_grid(tmp_path / "grid.gif", panels, fps=8)
    gif = Image.open(tmp_path / "grid.gif")
    assert gif.n_frames == 5
    cell = pictures.SIDE + 2 * pictures.GAP

    def pixels(column: int) -> list[int]:
        shades = []
        for number in range(gif.n_frames):
            gif.seek(number)
            shades.append(gif.convert("L").getpixel((column * cell + cell // 2, cell // 2)) // 128)
        return shades

    assert pixels(0) == [0, 1, 1, 1, 1]
    assert pixels(1) == [0, 1, 0, 1, 0]
    assert pixels(2) == [0, 0, 0, 0, 0]
    borders = [panels[1].frame(number)[1] for number in range(3)]
    assert borders == [pictures.GIVEN, pictures.MADE, pictures.GIVEN]


def test_every_picture_of_the_readme_is_written_by_a_script() -> None:
    scripts = "".join((ROOT / "scripts" / f"{name}.py").read_text() for name in ("pictures", "studio_video"))
    readme = (ROOT / "README.md").read_text()
    names = [line.split("](")[1].rstrip(")") for line in readme.splitlines() if line.startswith("![")]
    assert len(names) >= 3
    for name in names:
        assert (ROOT / name).is_file()
        assert f'RESULTS / "{Path(name).name}"' in scripts
