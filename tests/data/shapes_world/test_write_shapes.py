import pytest

from minisora.config import ClipConfig
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.shapes_world.write_shapes import make_shapes
from minisora.errors import UserError


def test_a_made_set_reads_back_as_the_world(tmp_path):
    make_shapes(tmp_path / "set", 6, seed=2, clip=ClipConfig(), progress=False)
    data, world = FolderDataset(tmp_path / "set", ClipConfig()), ShapesWorld(6, seed=2)
    assert data.captions() == world.captions()
    error = (data.clips(range(6)) - world.clips(range(6))).square().mean()
    assert error < 4 * 10**-3.0  # 30 dB PSNR


def test_making_again_changes_no_byte(tmp_path):
    for _ in range(2):
        make_shapes(tmp_path, 3, seed=0, clip=ClipConfig(frames=5), progress=False)
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    first = files
    make_shapes(tmp_path, 3, seed=0, clip=ClipConfig(frames=5), progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert sorted(first) == ["clip_00000.mp4", "clip_00001.mp4", "clip_00002.mp4", "metadata.csv"]


def test_other_files_are_not_mixed_in(tmp_path):
    (tmp_path / "holiday.mp4").write_text("")
    with pytest.raises(UserError, match=r"already holds 'holiday\.mp4'"):
        make_shapes(tmp_path, 1, 0, ClipConfig(), progress=False)
    (tmp_path / ".clip_00000.mp4.7.partial").write_text("")  # of a run that was cut off
    with pytest.raises(UserError, match=r"already holds 'holiday\.mp4'"):
        make_shapes(tmp_path, 1, 0, ClipConfig(), progress=False)
    with pytest.raises(UserError, match="is a file"):
        make_shapes(tmp_path / "holiday.mp4", 1, 0, ClipConfig(), progress=False)
    with pytest.raises(UserError, match="even sides"):
        make_shapes(tmp_path / "odd", 1, 0, ClipConfig(height=33), progress=False)
