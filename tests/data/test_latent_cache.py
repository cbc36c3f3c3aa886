import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from minisora.data import latent_cache
from minisora.data.clips import to_float
from minisora.data.latent_cache import LatentCache, Processes
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latent_cache, "CLIPS_PER_SHARD", 4)


class Encoder:
    """Averages 8x8 pixels of every fourth frame; counts what it is given, and fails when told to."""

    def __init__(self, fail_after=None):
        self.clips = 0
        self.fail_after = fail_after

    def __call__(self, videos):
        if self.fail_after is not None and self.clips >= self.fail_after:
            raise KeyboardInterrupt
        self.clips += len(videos)
        return torch.nn.functional.avg_pool3d(to_float(videos[:, :, ::4]), (1, 8, 8))


@pytest.fixture
def world():
    return ShapesWorld(11, frames=5, height=16, width=16)


def test_what_comes_out_is_what_was_encoded(tmp_path, world):
    steps = []
    cache = LatentCache.build(tmp_path, world, Encoder(), "vae", 3, steps.append)
    whole = Encoder()(world.clips(range(11)))
    assert torch.equal(cache.latents(range(11)), whole)
    assert torch.equal(cache.latents([10, 0, 5, 5]), whole[[10, 0, 5, 5]])
    assert cache.latents([1]).dtype == torch.float32
    assert cache.shape == (3, 2, 2, 2)
    assert cache.captions() == world.captions()
    assert len(cache) == 11
    assert steps[-1] == 11
    assert steps == sorted(set(steps))
    LatentCache.build(tmp_path, world, Encoder(), "vae", 3, steps.append)
    assert steps[-1] == 11
    assert steps == sorted(set(steps))  # nothing was left to encode, and nothing is told
    assert len(list(cache.folder.glob("*.safetensors"))) == 3
    with pytest.raises(IndexError):
        cache.latents([11])


def test_a_second_build_encodes_nothing(tmp_path, world):
    LatentCache.build(tmp_path, world, Encoder(), "vae")
    again = Encoder()
    LatentCache.build(tmp_path, world, again, "vae")
    assert again.clips == 0


def test_changing_a_batch_changes_no_cache(tmp_path, world):
    cache = LatentCache.build(tmp_path, world, Encoder(), "vae")
    cache.latents([0]).zero_()
    assert cache.latents([0]).abs().sum() > 0


def test_an_interrupted_build_goes_on_where_it_was(tmp_path, world):
    with pytest.raises(KeyboardInterrupt):
        LatentCache.build(tmp_path, world, Encoder(fail_after=6), "vae", batch_size=2)
    with pytest.raises(UserError, match="not a whole latent cache"):
        LatentCache.open(tmp_path, world, "vae")
    rest = Encoder()
    cache = LatentCache.build(tmp_path, world, rest, "vae", batch_size=3)
    assert rest.clips == 7  # 4 were in the first shard
    assert torch.equal(cache.latents(range(11)), Encoder()(world.clips(range(11))))
    assert not list(cache.folder.glob(".*"))


def test_a_stale_cache_cannot_be_read(tmp_path, world):
    cache = LatentCache.build(tmp_path, world, Encoder(), "vae")
    with pytest.raises(UserError):
        LatentCache.open(tmp_path, world, "another vae")
    with pytest.raises(UserError):
        LatentCache.open(tmp_path, ShapesWorld(11, seed=1, frames=5, height=16, width=16), "vae")
    # Even under the right name: shards and index of another key are not taken.
    other = LatentCache.build(tmp_path, world, lambda videos: Encoder()(videos) + 1, "another vae")
    for file in other.folder.iterdir():
        file.replace(cache.folder / file.name)
    with pytest.raises(UserError):
        LatentCache.open(tmp_path, world, "vae")
    assert torch.equal(
        LatentCache.build(tmp_path, world, Encoder(), "vae").latents([3]), Encoder()(world.clips([3]))
    )


def test_a_cut_off_shard_is_made_again(tmp_path, world):
    cache = LatentCache.build(tmp_path, world, Encoder(), "vae")
    expected = cache.latents(range(11))
    shard = cache.folder / "shard-00001.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-40])
    with pytest.raises(UserError, match="not a whole latent cache"):
        LatentCache.open(tmp_path, world, "vae")
    again = Encoder()
    assert torch.equal(LatentCache.build(tmp_path, world, again, "vae").latents(range(11)), expected)
    assert again.clips == 4


def test_a_shard_with_a_flipped_bit_is_made_again_and_one_without_a_checksum_is_read(tmp_path, world):
    cache = LatentCache.build(tmp_path, world, Encoder(), "vae")
    expected = cache.latents(range(11))
    shard = cache.folder / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-30] ^= 4
    shard.unlink()  # the old bytes are still mapped
    shard.write_bytes(data)
    again = Encoder()
    assert torch.equal(LatentCache.build(tmp_path, world, again, "vae").latents(range(11)), expected)
    assert again.clips == 4
    with safe_open(shard, "pt") as file:
        key = file.metadata()
    shard.unlink()
    save_file({"latents": expected[4:8]}, shard, metadata=key)  # as before there were checksums
    LatentCache.build(tmp_path, world, again, "vae")
    assert again.clips == 4


def test_an_index_of_nonsense_is_named(tmp_path, world):
    cache = LatentCache.build(tmp_path, world, Encoder(), "vae")
    (cache.folder / "index.json").write_text(json.dumps({"key": "x"}))
    with pytest.raises(UserError, match=str(cache.folder)):
        LatentCache.open(tmp_path, world, "vae")


def test_no_permission_is_one_line(tmp_path, world):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write the latent cache"):
        LatentCache.build(blocked, world, Encoder(), "vae")


def test_several_processes_encode_each_its_share_and_the_same_bytes(tmp_path, world):
    alone = LatentCache.build(tmp_path / "alone", world, Encoder(), "vae", 3)
    barrier = threading.Barrier(2, timeout=30)
    encoders = [Encoder(), Encoder()]

    def build(index):
        own = ShapesWorld(11, frames=5, height=16, width=16)
        processes = Processes(index, 2, barrier.wait)
        return LatentCache.build(tmp_path / "both", own, encoders[index], "vae", 3, processes=processes)

    with ThreadPoolExecutor(2) as pool:
        caches = list(pool.map(build, range(2)))
    # Of three shards with 4, 4 and 3 clips.
    assert [encoder.clips for encoder in encoders] == [7, 4]
    for cache in caches:
        assert torch.equal(cache.latents(range(11)), alone.latents(range(11)))
        assert cache.captions() == world.captions()
    for file in sorted(alone.folder.iterdir()):
        assert (caches[0].folder / file.name).read_bytes() == file.read_bytes()
