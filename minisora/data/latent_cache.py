"""Latents of every clip of a data set, encoded once and kept in memory-mapped safetensors shards.

    FOLDER/<16 hex digits>/shard-00000.safetensors   latents of 256 clips
                          /index.json                written last: its presence says that all shards are there

The digits are a hash of the VAE's weights and precision (the caller's `key`), the data set's fingerprint and
the format; each shard carries the whole key: latents of another VAE or of other clips cannot be read by mistake.
A build that was killed goes on after the last whole shard; a shard whose bytes have changed since is built again.

Stored as float32: the toy set (10k clips of 8x5x8x8) takes 102 MB, and training from the cache then equals
training without it to the bit.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from minisora.data.clip import ClipDataset, StandsIn
from minisora.data.shards import read_shard, write_shard
from minisora.errors import UserError
from minisora.files import read_json, write_whole

FORMAT = 1
CLIPS_PER_SHARD = 256  # never the batch size: a build may go on with another one


def fingerprint(module: nn.Module) -> str:
    """Hex hash (32 digits) of a module's weights and buffers, as float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def cache_keys(vae: nn.Module) -> dict[str, str]:
    """The key of a VAE's latents in each precision of accelerate: they differ, and are never mixed."""
    own = fingerprint(vae)
    return {"no": own, "bf16": f"{own}-bf16"}


class LatentCache:
    """Latents and captions of a data set; make one with `build`, or read a finished one with `open`."""

    def __init__(self, folder: Path, shards: list[Tensor], captions: list[str]) -> None:
        self.folder = folder
        self._shards = shards  # N C T' H' W' each, backed by the files
        self._captions = captions

    def __len__(self) -> int:
        return len(self._captions)

    @property
    def shape(self) -> tuple[int, ...]:
        """C T' H' W' of one clip's latents."""
        return tuple(self._shards[0].shape[1:])

    def latents(self, indices: Sequence[int]) -> Tensor:
        """The latents of these clips, `B C T' H' W'` float32; a copy, free to change."""
        places = [divmod(range(len(self))[index], CLIPS_PER_SHARD) for index in indices]
        return torch.stack([self._shards[shard][row] for shard, row in places])

    def captions(self) -> list[str]:
        """The caption of every clip."""
        return list(self._captions)

    @classmethod
    def build(
        cls,
        folder: Path,
        dataset: ClipDataset,
        encode: Callable[[Tensor], Tensor],
        key: str,
        batch_size: int = 8,
        progress: Callable[[int], None] | None = None,
    ) -> "LatentCache":
        """Encode what is not cached yet, and open the result. One process at a time.

        Args:
            folder: of all caches; this one gets its own folder in it.
            dataset: the clips.
            encode: videos B C T H W -> normalised latents B C T' H' W', the same for the same videos.
            key: of the encoder, such as a hash of the VAE's weights, and of its precision if that is not float32.
            batch_size: clips encoded at a time; on a CPU more do not fit its cache (Zen 3: 16 took 1.3 times as long).
            progress: called with the number of clips that are done, whenever some were encoded.

        Raises:
            UserError: the data set is empty, or the cache cannot be written.
        """
        total = len(dataset)
        if total == 0:
            raise UserError(
                "the data set has 0 clips, so there is nothing to encode; see `minisora data check`"
            )
        full_key = _full_key(dataset, key)
        place = folder / full_key[:16]
        try:
            place.mkdir(parents=True, exist_ok=True)
            for leftover in place.glob(".*.partial"):  # of a build that was killed
                leftover.unlink(missing_ok=True)
            whole = _read_index(place, full_key, total) is not None
            for shard, start in enumerate(range(0, total, CLIPS_PER_SHARD)):
                stop = min(start + CLIPS_PER_SHARD, total)
                file = _shard_file(place, shard)
                if _read_latents(file, full_key, stop - start) is None:
                    encoded, whole = [], False
                    for at in range(start, stop, batch_size):
                        videos = dataset.clips(range(at, min(at + batch_size, stop)))
                        encoded.append(encode(videos).detach().float().cpu())
                        if progress:
                            progress(min(at + batch_size, stop))
                    write_shard(file, {"latents": torch.cat(encoded)}, full_key)
            if not whole:
                captions = dataset.captions()
                if isinstance(dataset, StandsIn):  # asked last, when it is known which clips are damaged
                    captions = dataset.captions_of(range(total))
                about = {"key": full_key, "captions": captions, "captions_sha256": _digest(captions)}
                write_whole(place / "index.json", json.dumps(about))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"cannot write the latent cache {place}: {error}; free space or move it"
            ) from error
        return cls.open(folder, dataset, key)

    @staticmethod
    def exists(folder: Path, dataset: ClipDataset, key: str) -> bool:
        """Whether a build of this data set and encoder key was finished under `folder`."""
        full_key = _full_key(dataset, key)
        return _read_index(folder / full_key[:16], full_key, len(dataset)) is not None

    @classmethod
    def open(cls, folder: Path, dataset: ClipDataset, key: str) -> "LatentCache":
        """Read the finished cache of this data set and encoder key; any number of processes may.

        Raises:
            UserError: there is none, or it is not whole.
        """
        full_key = _full_key(dataset, key)
        place = folder / full_key[:16]
        broken = UserError(
            f"{place} is not a whole latent cache of this data and VAE: delete it and build again"
        )
        captions = _read_index(place, full_key, len(dataset))
        if captions is None:
            raise broken
        shards = []
        for shard, start in enumerate(range(0, len(dataset), CLIPS_PER_SHARD)):
            rows = min(CLIPS_PER_SHARD, len(dataset) - start)
            latents = _read_latents(_shard_file(place, shard), full_key, rows)
            if latents is None:
                raise broken
            shards.append(latents)
        return cls(place, shards, captions)


def _full_key(dataset: ClipDataset, key: str) -> str:
    facts = json.dumps([FORMAT, CLIPS_PER_SHARD, key, dataset.fingerprint()])
    return hashlib.sha256(facts.encode()).hexdigest()


def _read_index(place: Path, key: str, count: int) -> list[str] | None:
    """The captions in an index; None if it is not there, not whole, or of another key."""
    try:
        index = read_json(place / "index.json")
        captions = index["captions"]
        whole = index["key"] == key and len(captions) == count
        return captions if whole and index.get("captions_sha256") in (None, _digest(captions)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(captions: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(captions).encode()).hexdigest()


def _shard_file(place: Path, shard: int) -> Path:
    return place / f"shard-{shard:05d}.safetensors"


def _read_latents(file: Path, key: str, rows: int) -> Tensor | None:
    """The latents of a shard; None if it is not there, not whole, or of another key."""
    shard = read_shard(file, key)
    latents = None if shard is None else shard.get("latents")
    return latents if latents is not None and len(latents) == rows else None
