"""Tensors in safetensors files that know what they are made of: each carries a key, and is whole or not there.

A checksum of the tensors is kept beside the key: a shard with a damaged stretch in its middle counts as not there.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisora.files import whole


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
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (not a mapping)
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
        file: its place.
        tensors: by name.
        key: of what they are made of.
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
