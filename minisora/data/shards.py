"""Tensors in safetensors files that know what they are made of: each carries a key, and is whole or not there."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minisora.files import whole


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
    """The tensors of a shard by name, mapped from the file; None if it is not there, not whole, or of another key."""
    if key_of(file) != key:
        return None
    try:
        with safe_open(str(file), framework="pt") as shard:
            return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError):
        return None


def write_shard(file: Path, tensors: dict[str, Tensor], key: str) -> None:
    """Write a shard at once; raises OSError or SafetensorError where its place cannot be written."""
    with whole(file) as partial:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            str(partial),
            metadata={"key": key},
        )
