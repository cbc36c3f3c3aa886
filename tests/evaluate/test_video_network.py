"""Networks of torchvision: read from the disk, without unpickling, and refused in one line where they are not there."""

import pickle
from pathlib import Path

import pytest
import torch
from torchvision.models.video import mc3_18

from minisora.errors import UserError
from minisora.evaluate.video_network import VideoNetwork, weights_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.manual_seed(0)
    torch.save(mc3_18(weights=None).state_dict(), file)
    return file


def test_weights_from_a_file_give_features(weights: Path) -> None:
    network = VideoNetwork(str(weights))
    videos = torch.rand(2, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = network(videos)
    assert features.shape == (2, 512)
    assert not torch.allclose(features[0], features[1])
    assert torch.allclose(network(videos[:1]), features[:1], atol=1e-4)


def test_a_name_is_looked_for_where_torch_keeps_it(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(weights.parent))
    with pytest.raises(UserError, match="not on this disk, and nothing is downloaded: put https://.*r3d_18-"):
        VideoNetwork("r3d_18")
    place = weights.parent / "checkpoints"
    place.mkdir()
    (place / "mc3_18-a90a0ba3.pth").symlink_to(weights)
    assert weights_file("mc3_18").samefile(weights)
    VideoNetwork("mc3_18")
    (place / "r3d_18-b3b3357e.pth").symlink_to(weights)
    with pytest.raises(UserError, match="these are not the weights of r3d_18"):
        VideoNetwork("r3d_18")


def test_what_is_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'resnet' is neither r3d_18, mc3_18, r2plus1d_18 nor a file"):
        VideoNetwork("resnet")
    for name, content in (("text.pth", b"hello"), ("object.pth", pickle.dumps(Path("x")))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="no weights that torch can read safely"):
            VideoNetwork(str(tmp_path / name))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of r3d_18 or mc3_18 or r2plus1d_18"):
        VideoNetwork(str(tmp_path / "other.pth"))
