"""Tensors in safetensors files that know what they are made of: each carries a key, and is whole or not there.

A checksum lies beside the tensors, so that a file that was damaged later is not there either; older shards have none.
"""

import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisora.files import whole

_CHECKSUM = "crc32"


def key_of(file: Path) -> str | None:
    """The key that a shard was written with, "" without one; None if it is not there or cannot be read."""
    if not file.is_file():
        return None
    try:
        with safe_open(str(file), framework="pt") as shard:
            return (shard.metadata() or {}).get("key", "")
    except (OSError, SafetensorError):
        return None


def read_shard(file: Path, key: str) -> dict[str, Tensor] | None:
    """The tensors of a shard by name, mapped from the file; None if it is not there, damaged, or of another key."""
    if key_of(file) != key:
        return None
    try:
        with safe_open(str(file), framework="pt") as shard:
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError):
        return None
    checksum = tensors.pop(_CHECKSUM, None)
    return tensors if checksum is None or checksum.equal(_checksum(tensors)) else None


def write_shard(file: Path, tensors: dict[str, Tensor], key: str) -> None:
    """Write a shard at once; raises OSError or SafetensorError where its place cannot be written."""
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with whole(file) as partial:
        # A tensor, since entries of the metadata beside the key would come in an order of chance.
        save_file({**kept, _CHECKSUM: _checksum(kept)}, str(partial), metadata={"key": key})


def _checksum(tensors: dict[str, Tensor]) -> Tensor:
    """CRC-32 of all bytes, names and shapes: int64, of no dimension."""
    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.cpu().flatten().view(torch.uint8).numpy().data, crc)
    return torch.tensor(crc)
