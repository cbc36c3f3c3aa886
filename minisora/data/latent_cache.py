"""Latents of every clip of a data set, encoded once and kept in memory-mapped safetensors shards.

    FOLDER/<16 hex digits>/shard-00000.safetensors   latents of 256 clips
                          /index.json                written last: its presence says that all shards are there

The digits are a hash of the VAE's weights and precision (the caller's `key`), the data set's fingerprint and
the format; each shard carries the whole key: latents of another VAE or of other clips cannot be read by mistake.
Several processes build a cache together, each its shards, on disks that all of them see.
A build that was killed goes on after the last whole shard; a shard whose bytes have changed since is built again.

Stored as float32, so training from the cache equals training without it to the bit.

A shard is a safetensors file with two facts in its metadata: a key that says what its tensors are made of, and a
checksum of them. It is whole or it counts as not there. (`minisora distill` keeps its teacher's trajectories in
shards too, and `minisora sample` the latents of what it wrote.)
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minisora.data.clips import ClipDataset, StandsIn
from minisora.errors import UserError
from minisora.files import read_json, whole, write_whole

FORMAT = 1
# Never the batch size: a build may go on with another one.
CLIPS_PER_SHARD = 256


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


@dataclass(frozen=True)
class Processes:
    """The processes that build a cache together.

    Args:
        index: of this one, from 0.
        count: of all.
        wait: returns when all have called it.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], object] = lambda: None


class LatentCache:
    """Latents and captions of a data set; make one with `build`, or read a finished one with `open`."""

    def __init__(self, folder: Path, shards: list[Tensor], captions: list[str]) -> None:
        # Of the shards, each is N Z T' H' W', backed by its file.
        self.folder, self._shards, self._captions = folder, shards, captions

    def __len__(self) -> int:
        return len(self._captions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Z T' H' W' of one clip's latents."""
        return tuple(self._shards[0].shape[1:])

    def latents(self, indices: Sequence[int]) -> Tensor:
        """The latents of these clips, `B Z T' H' W'` float32; a copy, free to change."""
        rows = [divmod(range(len(self))[index], CLIPS_PER_SHARD) for index in indices]
        return torch.stack([self._shards[shard][row] for shard, row in rows])

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
        processes: Processes | None = None,
    ) -> "LatentCache":
        """Encode what is not cached yet, and open the result; where there are several processes, all call it.

        Args:
            folder: the folder of all caches; this one gets its own folder in it.
            dataset: the clips.
            encode: videos B C T H W uint8 -> normalised latents B Z T' H' W', the same for the same videos.
            key: names the encoder, such as a hash of the VAE's weights, and its precision if that is not float32.
            batch_size: number of clips encoded at a time; the activations of more do not fit a CPU's cache.
            progress: called with the number of clips that are done, whenever some were encoded.
            processes: that build together, each its share of the shards; None: this one alone.

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
        processes = processes or Processes()
        try:
            place.mkdir(parents=True, exist_ok=True)
            # Of a build that was killed; of several processes another may be writing there by now.
            if processes.index == 0:
                for leftover in place.glob(".*.partial"):
                    leftover.unlink(missing_ok=True)
            processes.wait()
            complete = _read_index(place, full_key, total) is not None
            for shard, start in enumerate(range(0, total, CLIPS_PER_SHARD)):
                if shard % processes.count != processes.index:
                    continue
                stop = min(start + CLIPS_PER_SHARD, total)
                file = _shard_file(place, shard)
                if _read_latents(file, full_key, stop - start) is None:
                    encoded, complete = [], False
                    for at in range(start, stop, batch_size):
                        videos = dataset.clips(range(at, min(at + batch_size, stop)))
                        encoded.append(encode(videos).detach().float().cpu())
                        if progress:
                            progress(min(at + batch_size, stop))
                    write_shard(file, {"latents": torch.cat(encoded)}, full_key)
            processes.wait()
            if processes.index == 0 and not (complete and processes.count == 1):
                captions = dataset.captions()
                # Asked last, when it is known which clips are damaged.
                if isinstance(dataset, StandsIn):
                    captions = dataset.captions_of(range(total))
                about = {"key": full_key, "captions": captions, "captions_sha256": _captions_digest(captions)}
                write_whole(place / "index.json", json.dumps(about))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"cannot write the latent cache {place}: {error}; free space or move it"
            ) from error
        processes.wait()
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
        known = index["key"] == key and len(captions) == count
        return (
            captions if known and index.get("captions_sha256") in (None, _captions_digest(captions)) else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _captions_digest(captions: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(captions).encode()).hexdigest()


def _shard_file(place: Path, shard: int) -> Path:
    return place / f"shard-{shard:05d}.safetensors"


def _read_latents(file: Path, key: str, rows: int) -> Tensor | None:
    """The latents of a shard; None if it is not there, not whole, or of another key."""
    shard = read_shard(file, key)
    latents = None if shard is None else shard.get("latents")
    return latents if latents is not None and len(latents) == rows else None


def key_of(file: Path) -> str | None:
    """The key that a shard was written with, "" without one; None if it is not there or cannot be read."""
    written = _written(file)
    return None if written is None else written[0]


def read_shard(file: Path, key: str) -> dict[str, Tensor] | None:
    """The tensors of a shard by name, mapped from the file; None if it is not there, not whole, or of another key.

    One that was written before there were checksums is taken as it is.
    """
    written = _written(file)
    if written is None or written[0] != key:
        return None
    try:
        with safe_open(str(file), framework="pt") as shard:
            # Not a mapping, for all that it has keys.
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
        about = file.stat()
        digest = (
            _checksum(file.absolute(), about.st_mtime_ns, about.st_size, about.st_ino) if written[1] else ""
        )
        return tensors if digest == written[1] else None
    except (OSError, SafetensorError):
        return None


def write_shard(file: Path, tensors: dict[str, Tensor], key: str) -> None:
    """Write a shard at once; raises OSError or SafetensorError where its place cannot be written.

    Args:
        file: its path.
        tensors: by name.
        key: says what they are made of.
    """
    stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with whole(file) as partial:
        # One entry: of several, safetensors writes now one first and now another.
        save_file(stored, str(partial), metadata={"key": f"{key} {_digest(stored)}"})


def _written(file: Path) -> tuple[str, str] | None:
    """Key and checksum of a shard, each "" if it has none; None if it is not there or cannot be read."""
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), framework="pt") as shard:
            text = (shard.metadata() or {}).get("key", "")
            match = re.fullmatch(r"(.*) ([0-9a-f]{64})", text, re.DOTALL)
            return (match[1], match[2]) if match else (text, "")
    except (OSError, SafetensorError):
        return None


@lru_cache(maxsize=1 << 14)
def _checksum(file: Path, changed: int, size: int, inode: int) -> str:
    """`_digest` of a shard, once for a file as it is: what is built is opened next."""
    with safe_open(str(file), framework="pt") as shard:
        return _digest({name: shard.get_tensor(name) for name in shard.keys()})  # noqa: SIM118


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
