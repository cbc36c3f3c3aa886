"""Good bytes, texts and trees made bad, by a seed: each gives what became of them and says what was done."""

import copy
import json
import random
from typing import Any

import yaml


def damage(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Bytes cut, flipped, blanked, swapped, doubled or replaced; and which."""
    size = max(1, len(data))
    at, length = rng.randrange(size), rng.randrange(1, max(2, size // 4))
    other = rng.randrange(size)
    how = rng.choice(
        ("cut", "cut", "flip", "flip", "blank", "swap", "insert", "double", "head", "empty", "noise")
    )
    if how == "cut":
        return data[:at], f"cut at {at} of {size}"
    if how == "flip":
        flipped = bytearray(data)
        for _ in range(rng.choice((1, 1, 8, 64))):
            if flipped:
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped), "bits flipped"
    if how == "blank":
        return data[:at] + bytes(min(length, size - at)) + data[at + length :], f"{length} zeros at {at}"
    if how == "swap":
        first, second = sorted((at, other))
        block = min(length, second - first, size - second)
        return (
            data[:first] + data[second : second + block] + data[first + block : second]
            + data[first : first + block] + data[second + block :]
        ), "blocks swapped"  # fmt: skip
    if how == "insert":
        return data[:at] + rng.randbytes(length) + data[at:], f"{length} bytes more at {at}"
    if how == "double":
        return data[: at + length] + data[at:], f"{length} bytes doubled at {at}"
    if how == "head":
        return rng.randbytes(min(16, size)) + data[16:], "another head"
    return (b"", "empty") if how == "empty" else (rng.randbytes(size), "noise")


WORDS = (
    "",
    " ",
    "x" * 5000,
    "[bold]x[/bold]",
    "../../etc",
    "a: b",
    "\u202eabc",
    "🎬",
    "%s %d {0} {x}",
    "nan",
)
SCALARS = (
    None,
    True,
    -1,
    0,
    0.5,
    -0.0,
    1.5,
    float("nan"),
    float("inf"),
    "1e400",
    [],
    {},
    [[[]]],
    {"a": {"b": 1}},
)
LARGE = (10**6, 10**12, 10**30, -(10**30), 2**63, 1e308)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value of a tree, the inner ones too."""
    items = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    )
    return [path] * bool(path) + [place for key, value in items for place in leaves(value, (*path, key))]


def twist(tree: Any, rng: random.Random, large: bool = True) -> tuple[Any, str]:
    """A tree of JSON or YAML with one value replaced, dropped, renamed or wrapped; and which."""
    tree = copy.deepcopy(tree)
    path = rng.choice(leaves(tree))
    node = tree
    for key in path[:-1]:
        node = node[key]
    key, name = path[-1], ".".join(map(str, path))
    how = rng.choice(("replace", "replace", "replace", "drop", "rename", "wrap"))
    if how == "drop":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[rng.choice((f"{key}s", str(key)[:-1] or "x", "", "[red]", 7, None))] = node.pop(key)
    elif how == "wrap":
        node[key] = rng.choice(([node[key]], {"value": node[key]}, str(node[key])))
    else:
        node[key] = rng.choice(SCALARS + WORDS + (LARGE if large else ()))
        return tree, f"{name} = {str(node[key])[:40]!r}"
    return tree, f"{name}: {how}"


_NOT_YAML = (
    b"", b"null", b"[]", b"- a\n- b", b"just words", b"{", b"\t", b"a: &a [*a]", b"clip: &c {x: *c}",
    b"a: 1\n---\nb: 2",
    b"? [a]\n: b", b"clip: {frames: 5}\nclip: {frames: 9}", b"[" * 3000, b"{a: " * 3000, b"\xef\xbb\xbfseed: 1",
    "seed: 1".encode("utf-16"), b"seed: !!binary aGk=", b"seed: !!timestamp 2001-01-01",
    b"data: !!set {a, b}", b"<<: *x",
    b"1: 2", b"null: x", b"2001-01-01: x", b"seed: !!python/object/apply:os.getcwd []", b"%YAML 9.9\n---\nseed: 1",
    b"seed: 0x" + b"f" * 5000, b"seed: " + b"9" * 5000, b"clip: {frames: " + b"9" * 400 + b"}", b"seed: 1:30:00",
    b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
    ),
    b"\x00", b"\xff\xfe", b"seed: \x1b[31m1", "sëed: 1".encode("latin-1"), b"clip:\n  frames: 9\n frames: 8", b"{}: {}",
    b"seed: ~", b"clip: ~", b"clip:", b"seed: '1'", b"seed: yes", b"dit: {width: 1e3}", b"extra: 1",
    b"DIT: {width: 48}",
)  # fmt: skip


def broken_yaml(good: str, rng: random.Random, large: bool = True) -> tuple[bytes, str]:
    """A YAML file with one value other than it should be, damaged, or another thing altogether; and which."""
    how = rng.random()
    if how < 0.5:
        tree, detail = twist(yaml.safe_load(good), rng, large)
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogateescape"), detail
    if how < 0.8:
        text = rng.choice(_NOT_YAML)
        return text, repr(text[:40])
    return damage(good.encode(), rng)


def broken_json(good: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The same of a JSON file."""
    how = rng.random()
    if how < 0.6:
        tree, detail = twist(json.loads(good), rng)
        return json.dumps(tree).encode(), detail
    if how < 0.75:
        text = rng.choice(
            (b"", b"null", b"[]", b"{}", b"1", b'"x"', b"[" * 5000, b'{"a":' * 5000, b"\xff", b"NaN")
        )
        return text, repr(text[:40])
    return damage(good, rng)
