"""The VAE: causal in time, exact in chunks and tiles, any size its strides allow."""

import pytest
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.models.vae import VideoVAE


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    """A VAE whose every parameter matters: residual branches start at zero, so they are filled."""
    torch.manual_seed(0)
    model = VideoVAE(widths=(16, 32), latent_channels=4, blocks_per_level=1).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def random_video(frames: int, height: int, width: int) -> Tensor:
    return torch.rand(2, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.mark.parametrize(
    ("temporal", "spatial", "patch", "widths"),
    [(4, 8, 4, (8, 16)), (4, 8, 2, (8, 8, 16)), (8, 16, 4, (8, 8, 8)), (1, 8, 4, (8, 8)), (2, 4, 4, (8,))],
)
def test_sizes_of_every_compression(temporal: int, spatial: int, patch: int, widths: tuple[int, ...]) -> None:
    vae = VideoVAE(temporal, spatial, latent_channels=4, pixel_patch=patch, widths=widths, blocks_per_level=1)
    video = random_video(1 + 2 * temporal, 2 * spatial, 3 * spatial)
    latents = vae.to_latents(video)
    assert latents.shape == (2, 4, 3, 2, 3)
    assert vae.to_video(latents).shape == video.shape
    assert vae.clip_size(3, 2, 3) == tuple(video.shape[2:])


def test_one_image_is_a_video_and_equals_the_first_frame_of_one(vae: VideoVAE) -> None:
    video = random_video(9, 32, 32)
    torch.testing.assert_close(
        vae.to_latents(video[:, :, :1]), vae.to_latents(video)[:, :, :1], atol=1e-4, rtol=1e-4
    )


def test_no_latent_sees_a_later_frame(vae: VideoVAE) -> None:
    video = random_video(17, 32, 32)
    changed = video.clone()
    changed[:, :, 9:] = 0
    before, after = vae.to_latents(video), vae.to_latents(changed)
    torch.testing.assert_close(
        before[:, :, :3], after[:, :, :3], atol=1e-4, rtol=1e-4
    )  # latent frame 2 ends with frame 8
    assert (before[:, :, 3:] - after[:, :, 3:]).abs().amax() > 1e-3
    latents = before.clone()
    latents[:, :, 3:] = 0
    a, b = vae.to_video(before), vae.to_video(latents)
    torch.testing.assert_close(a[:, :, :9], b[:, :, :9], atol=1e-4, rtol=1e-4)
    assert (a[:, :, 9:] - b[:, :, 9:]).abs().amax() > 1e-3


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_give_what_the_whole_gives(vae: VideoVAE, chunk: int) -> None:
    video = random_video(21, 32, 32)
    latents = vae.to_latents(video)
    torch.testing.assert_close(vae.to_latents(video, chunk=chunk), latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        vae.to_video(latents, chunk=chunk), vae.to_video(latents), atol=1e-4, rtol=1e-4
    )


def test_tiles_give_what_the_whole_gives_and_need_their_halo(vae: VideoVAE) -> None:
    video = random_video(5, 96, 128)
    latents = vae.to_latents(video)
    torch.testing.assert_close(vae.to_latents(video, tile=4), latents, atol=1e-4, rtol=1e-4)
    whole = vae.to_video(latents)
    torch.testing.assert_close(vae.to_video(latents, tile=5), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(vae.to_video(latents, tile=5, chunk=1), whole, atol=1e-4, rtol=1e-4)
    from minisora.models import vae as module

    short = module._tiled(lambda z: vae.decode(z), latents, in_cell=1, out_cell=8, tile=5, halo=1)
    assert (short.clamp(-1, 1) - whole).abs().max() > 1e-3  # so the test above can fail


def test_normalisation_round_trip_and_statistics_travel_with_the_weights(vae: VideoVAE, tmp_path) -> None:
    vae.latent_mean.copy_(torch.arange(4.0))
    vae.latent_std.copy_(torch.arange(1.0, 5.0))
    raw = torch.randn(1, 4, 2, 3, 3)
    torch.testing.assert_close(vae.denormalize(vae.normalize(raw)), raw)
    vae.save_pretrained(tmp_path)
    loaded = VideoVAE.from_pretrained(tmp_path)
    assert loaded.latent_std.tolist() == [1, 2, 3, 4]
    video = random_video(5, 16, 16)
    torch.testing.assert_close(loaded.eval().to_latents(video), vae.to_latents(video))


@pytest.mark.parametrize(
    ("size", "said"), [((16, 64, 64), "13 or 17"), ((17, 60, 64), "56 or 64"), ((17, 64, 4), "use 8")]
)
def test_a_size_that_does_not_fit_names_the_nearest(
    vae: VideoVAE, size: tuple[int, int, int], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        vae.latent_size(*size)
