import numpy as np
import pytest
import torch

from minisora.config import ClipConfig, Config, DataConfig
from minisora.data.dataset import open_dataset
from minisora.errors import UserError


def config(root, dataset, frames=9, **data):
    clip = ClipConfig(frames=frames, height=32, width=32)
    return Config(clip=clip, data=DataConfig(source="torchvision", path=root, dataset=dataset, **data))


@pytest.fixture
def digits(tmp_path):
    """The layout of the real file, T N H W, with frame t of clip n at brightness 10 t + n."""
    (tmp_path / "MovingMNIST").mkdir()
    light = 10 * np.arange(20)[:, None] + np.arange(30)[None]
    np.save(
        tmp_path / "MovingMNIST" / "mnist_test_seq.npy",
        np.tile(light[..., None, None], (64, 64)).astype(np.uint8),
    )
    return tmp_path


def test_moving_mnist(digits):
    train = open_dataset(config(digits, "MovingMNIST"), "train")
    validation = open_dataset(config(digits, "MovingMNIST"), "validation")
    assert (len(train), len(validation)) == (27, 3)
    videos = train.clips([4, 0])
    assert videos.shape == (2, 3, 9, 32, 32)
    assert videos[0, 0, :, 5, 5].tolist() == [10 * frame + 4 for frame in range(9)]
    assert set(train.captions()) == {"two white digits moving"}
    assert train.fingerprint() != validation.fingerprint()


def test_clips_longer_than_twenty_frames(digits):
    padded = open_dataset(config(digits, "MovingMNIST", frames=25), "train").clips([0])[0]
    assert padded.shape[1] == 25
    with pytest.raises(UserError, match="20 frames, 25 wanted"):
        open_dataset(config(digits, "MovingMNIST", frames=25, short_clips="error"), "train")


def test_digits_overlap_in_training_only(digits):
    train, validation = (
        open_dataset(config(digits, "MovingMNIST", overlap=0.5), split) for split in ("train", "validation")
    )
    # Of 20 frames three clips of 9 that start every 4, the first of every video first.
    assert (len(train), len(validation)) == (27 * 3, 3)
    assert train.clips([4 + 2 * 27])[0, 0, :, 5, 5].tolist() == [10 * frame + 4 for frame in range(8, 17)]
    plain = open_dataset(config(digits, "MovingMNIST"), "train")
    assert torch.equal(train.clips(range(27)), plain.clips(range(27)))
    assert len({each.fingerprint() for each in (train, plain, validation)}) == 3


@pytest.mark.parametrize(("fit", "shown"), [("crop", (32, 32)), ("pad", (16, 16)), ("squash", (16, 32))])
def test_digits_keep_their_shape_unless_squashed(tmp_path, fit, shown):
    (tmp_path / "MovingMNIST").mkdir()
    frames = np.zeros((20, 2, 64, 64), np.uint8)
    frames[..., 16:48, 16:48] = 255
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", frames)
    wide = config(tmp_path, "MovingMNIST", fit=fit).replace(**{"clip.width": 64})
    light = open_dataset(wide, "train").clips([0])[0, 0, 0] > 128
    assert (light.any(1).sum(), light.any(0).sum()) == shown


def test_ucf101_is_captioned_by_class(tmp_path, ramp):
    for name in ("ApplyEyeMakeup", "YoYo"):
        for group in range(2):
            ramp(tmp_path / "UCF-101" / name / f"v_{name}_g0{group}.avi", 50, 25)
    train = open_dataset(config(tmp_path, "UCF101"), "train")
    validation = open_dataset(config(tmp_path, "UCF101"), "validation")
    assert set(train.captions()) == {"apply eye makeup", "yo yo"}
    assert len(train) == 3
    assert len(validation) == 1
    assert train.clips([0])[0].shape == (3, 9, 32, 32)


@pytest.mark.parametrize(("name", "message"), [("MovingMNIST", "mnist_test_seq.npy"), ("UCF101", "unpack")])
def test_data_that_are_not_there(tmp_path, name, message):
    with pytest.raises(UserError, match=f"{name} is not in .*{message}"):
        open_dataset(config(tmp_path, name), "train")


def test_unknown_names_get_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"'MovingMnist' is unknown \(did you mean 'MovingMNIST'\?\)"):
        open_dataset(config(tmp_path, "MovingMnist"), "train")
