"""The VAE: causal in time, exact in chunks and tiles, any size its strides allow."""

import weakref

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minisora.errors import UserError
from minisora.models.vae import Parts, Sizes, VideoVAE, choose_parts, halve, in_parts


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
    narrow = Sizes(frames=4, cell=8, halo=1, pixel_bytes=1)
    short = in_parts(vae.decode, latents, narrow, Parts(tile=5), encodes=False)
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


SIZES = Sizes(frames=4, cell=8, halo=3, pixel_bytes=100.0)
VIDEO = 100 * 4 * 8 * 8 * (5 * 6 * 6)  # bytes of one of 5 x 6 x 6 cells


@pytest.mark.parametrize(
    ("budget", "parts"),
    [
        (2 * VIDEO, Parts()),
        (1.5 * VIDEO, Parts(rows=1)),
        (0.9 * VIDEO, Parts(rows=1, chunk=3)),
        (0.1 * VIDEO, Parts(rows=1, chunk=1, tile=4)),
        (0, Parts(rows=1, chunk=1, tile=4)),
    ],
)
def test_parts_are_rows_then_frames_then_tiles(budget: float, parts: Parts) -> None:
    assert choose_parts((2, 5, 6, 6), SIZES, budget) == parts


@pytest.mark.parametrize(
    "parts", [Parts(rows=1), Parts(rows=1, chunk=2), Parts(rows=2, chunk=1, tile=5)], ids=str
)
def test_any_parts_give_what_the_whole_gives(vae: VideoVAE, parts: Parts) -> None:
    video = random_video(9, 96, 128)
    sizes = Sizes(4, 8, 6, 1)
    latents = vae.to_latents(video)
    coded = in_parts(lambda x, stream: vae.encode(x, stream).mean, video, sizes, parts, encodes=True)
    torch.testing.assert_close(vae.normalize(coded), latents, atol=1e-5, rtol=1e-5)
    decoded = in_parts(vae.decode, vae.denormalize(latents), sizes, parts, encodes=False).clamp(-1, 1)
    torch.testing.assert_close(decoded, vae.to_video(latents), atol=1e-5, rtol=1e-5)


def test_little_memory_and_running_out_of_it_give_the_same_video(
    vae: VideoVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = vae.to_latents(random_video(9, 64, 64))
    whole = vae.to_video(latents)
    real, sizes = vae.decode, []

    def tight(raw: Tensor, stream=None) -> Tensor:
        sizes.append(raw.numel())
        if raw.numel() > latents.numel() // 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return real(raw, stream)

    monkeypatch.setattr(vae, "decode", tight)
    torch.testing.assert_close(vae.to_video(latents), whole, atol=1e-5, rtol=1e-5)
    assert sizes[0] == latents.numel()
    monkeypatch.setattr("minisora.models.vae.available_memory", lambda _: 4 << 20)
    sizes.clear()
    torch.testing.assert_close(vae.to_video(latents), whole, atol=1e-5, rtol=1e-5)
    assert max(sizes) <= latents.numel() // 2  # no attempt at the whole


def test_no_memory_at_all_and_another_error_are_raised(
    vae: VideoVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = vae.to_latents(random_video(5, 64, 64))
    for error in (MemoryError(), RuntimeError("shapes do not fit")):

        def fail(raw: Tensor, stream=None, error: Exception = error) -> Tensor:
            raise error

        monkeypatch.setattr(vae, "decode", fail)
        with pytest.raises(type(error)):
            vae.to_video(latents)


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors that are there at a time, of those made within."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.held: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in self.held:
                self.held[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata)
        return made

    def _free(self, which: int) -> None:
        self.now -= self.held.pop(which)


@pytest.mark.parametrize(
    ("widths", "patch", "temporal"),
    [((64, 128), 4, 4), ((16, 32), 4, 4), ((32, 64, 64), 2, 4), ((64,), 4, 2)],
)
def test_activations_are_what_is_estimated(widths: tuple[int, ...], patch: int, temporal: int) -> None:
    spatial = patch * 2 ** (len(widths) - 1)
    vae = VideoVAE(temporal, spatial, 4, patch, widths, blocks_per_level=1).eval()
    video = random_video(17, 64, 64)[:1]
    latents = vae.to_latents(video)
    estimate = vae.pixel_bytes() * 17 * 64 * 64
    for code, x in ((vae.encode, video), (vae.decode, latents)):
        with torch.no_grad(), LiveBytes() as live:
            code(x)
        assert estimate / 3 < live.peak < estimate
    with torch.no_grad(), LiveBytes() as live:
        vae.to_video(latents, chunk=1)
    # Chunks hold the video, 12 bytes a pixel, and no more than their share of the rest with what layers remember.
    assert live.peak < 12 * 17 * 64 * 64 + vae.pixel_bytes() * (temporal + 4) * 64 * 64


def test_noise_on_latents_is_beside_the_posteriors_own() -> None:
    vae = VideoVAE(latent_channels=4, widths=(16, 16), blocks_per_level=1).eval()
    video = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        posterior = vae.encode(video)
        own, _, _ = vae(video, noise)
        more, returned, _ = vae(video, noise, 0.5)
        deviation = (posterior.log_variance.exp() + 0.25).sqrt()
        torch.testing.assert_close(more, vae.decode(posterior.mean + deviation * noise))
    assert not torch.allclose(own, more)
    # The KL divergence stays that of the posterior.
    assert torch.equal(returned.log_variance, posterior.log_variance)


def test_halves_are_means_of_what_stands_together_and_whole_cells_are_halved() -> None:
    x = torch.arange(2 * 5 * 6, dtype=torch.float32).view(1, 1, 2, 5, 6)
    half = halve(x)
    assert half.shape == (1, 1, 2, 2, 3)
    assert half[0, 0, 1, 1, 2] == x[0, 0, 1, 2:4, 4:6].mean()
    # Five cells of 8 pixels: the video keeps four, as its latents do.
    assert halve(torch.zeros(1, 3, 1, 40, 48), 8).shape == (1, 3, 1, 16, 24)


def test_latents_of_half_the_size_decode_to_a_video_of_half_the_size() -> None:
    vae = VideoVAE(latent_channels=4, widths=(16, 16), blocks_per_level=1).eval()
    video = torch.rand(1, 3, 5, 24, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(1, 4, 2, 3, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own, posterior, half = vae(video, noise, halved=True)
        assert half.shape == halve(video, 8).shape == (1, 3, 5, 8, 8)
        torch.testing.assert_close(half, vae.decode(halve(posterior.sample(noise))))
    assert own.shape == video.shape


def test_a_vae_that_mixes_no_frames_codes_each_by_itself() -> None:
    vae = VideoVAE(temporal_factor=1, widths=(16, 24), blocks_per_level=1, mixes_frames=False)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    video = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    latents = vae.to_latents(video)
    assert latents.shape == (1, 8, 3, 2, 2)
    apart = [vae.to_latents(video[:, :, frame : frame + 1]) for frame in range(3)]
    torch.testing.assert_close(latents, torch.cat(apart, dim=2))
    torch.testing.assert_close(vae.to_video(latents)[:, :, 1:2], vae.to_video(latents[:, :, 1:2]))
    with pytest.raises(UserError, match="temporal_factor"):
        VideoVAE(temporal_factor=4, mixes_frames=False)
