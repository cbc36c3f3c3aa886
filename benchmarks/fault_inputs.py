"""Malformed inputs by seeded mutation of good ones: what people bring to the commands of minisora."""

import json
import random
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import yaml
from fault_mutations import LARGE, SCALARS, WORDS, broken_json, broken_yaml, damage, leaves
from fault_process import PROMPT, TINY, World, stage_of
from PIL import Image

RESULTS = Path(__file__).parent / "results"
# Ending, format, codec, pixel format: with an encoder in every build of PyAV.
CONTAINERS = (
    ("mp4", "mp4", "libx264", "yuv420p"),
    ("mov", "mov", "libx264", "yuv420p"),
    ("m4v", "mp4", "mpeg4", "yuv420p"),
    ("avi", "avi", "mpeg4", "yuv420p"),
    ("mkv", "matroska", "libx264", "yuv420p"),
    ("webm", "webm", "libvpx-vp9", "yuv420p"),
    ("gif", "gif", "gif", "rgb8"),
    ("mpg", "mpeg", "mpeg2video", "yuv420p"),
    ("ts", "mpegts", "libx264", "yuv420p"),
    ("flv", "flv", "flv", "yuv420p"),
)
IMAGES = ("png", "jpg", "webp", "bmp", "tiff", "gif")


@dataclass(frozen=True)
class Brought:
    """A command with something malformed in its folder.

    Args:
        argv: of the command.
        detail: what was done to what.
        outputs: beginnings of paths that the command may replace when it succeeds.
        may_change: and of those that it may change even when it does not: logs and caches.
        as_reference: the stage whose numbers it must end in if it succeeds; those in these files.
    """

    argv: tuple[str, ...]
    detail: str
    outputs: tuple[str, ...] = ()
    may_change: tuple[str, ...] = ()
    as_reference: str | None = None
    compared: tuple[str, ...] = ()


def bring(family: str, rng: random.Random, world: World, place: Path) -> Brought:
    """Fill a folder with an input of a family; there is also a file of the user's own that nothing may touch."""
    (place / "tiny.yaml").write_text(TINY)
    (place / "out").mkdir()
    (place / "out" / "notes.txt").write_text("mine")
    return FAMILIES[family][1](rng, world, place)


def _config(rng: random.Random, world: World, place: Path) -> Brought:
    trains = rng.random() < 0.4
    data, detail = broken_yaml(TINY, rng, large=not trains)
    (place / "bad.yaml").write_bytes(data)
    argv: tuple[str, ...] = ("data", "make", "more", "--clips", "1", "-c", "bad.yaml")
    if trains:
        argv = ("train", "vae", "-c", "bad.yaml", "-o", "run", "-s", "train_vae.steps=2")
    elif rng.random() < 0.2:
        argv = ("flops", "-c", "bad.yaml", "--json", "out/flops.json")
    return Brought(argv, detail)


def _override(rng: random.Random, world: World, place: Path) -> Brought:
    path = ".".join(map(str, rng.choice(leaves(yaml.safe_load(TINY)))))
    value = rng.choice(
        (*map(str, SCALARS), *WORDS, *map(str, LARGE), "[", "{a: 1", "&a [*a]", "!!int x", "*x", "- - -")
    )
    item = rng.choice((f"{path}={value}", f"{path}={value}", f"{path}", f"={value}", f"{path}.x={value}", f".{path}=1",
                       f"{path}==1", f"{path[:-1]}={value}", "....=1", "a.b.c.d=1", "[red]=1",
                       f"{path}={value}={value}"))  # fmt: skip
    item = item.replace("\0", "")
    command = rng.choice(
        (
            ("data", "make", "more", "--clips", "1"),
            ("data", "make", "more", "--clips", "1"),
            ("report", "-o", "rep"),
        )
    )
    return Brought(
        (*command, *(("-c", "tiny.yaml") if command[0] == "data" else ()), "--set", item), item[:60]
    )


def _clips(world: World, place: Path, count: int = 6) -> Path:
    """A few good clips of the world, with a table."""
    folder = place / "clips"
    folder.mkdir()
    source = world.after("make") / "clips"
    lines = (source / "metadata.csv").read_text().splitlines()[: count + 1]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    for line in lines[1:]:
        shutil.copy2(source / line.split(",")[0], folder)
    return folder


def _reads(rng: random.Random, folder: str = "clips") -> tuple[str, ...]:
    """A command that reads a data folder."""
    return rng.choice(
        (
            ("data", "check", folder, "-c", "tiny.yaml", "--json", "out/check.json"),
            ("data", "check", folder, "-c", "tiny.yaml"),
            ("train", "vae", "-c", "tiny.yaml", "-d", folder, "-o", "run", "-s", "train_vae.steps=2"),
            ("evaluate", "videos", folder, "-o", "judged"),
        )
    )


def _table(rng: random.Random, world: World, place: Path) -> Brought:
    table = _clips(world, place) / "metadata.csv"
    good = table.read_text()
    rows = [line.split(",", 1) for line in good.splitlines()]
    header, body = rows[0], rows[1:]
    if rng.random() < 0.4:  # JSON lines
        table.unlink()
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in body]
        at = rng.randrange(len(lines))
        named = json.dumps(
            {"file_name": rng.choice((*WORDS, "/etc/passwd", ".", "..", "clips")), "text": "x"}
        )
        said = json.dumps({"file_name": body[at][0], "text": rng.choice((*WORDS, *map(str, SCALARS)))})
        lines[at] = rng.choice(
            (lines[at][:-1], "", "[]", "null", "1", "{}", '{"file_name": 3, "text": 4}', '{"file_name": null}',
             "[" * 5000, lines[at].replace("file_name", "file"), '{"file_name": "x.mp4", "text": NaN}',
             lines[at] * 2, f"\ufeff{lines[at]}", named, said)
        )  # fmt: skip
        data, detail = "\n".join(lines).encode("utf-8", "surrogateescape"), f"line {at}: {lines[at][:50]!r}"
        if rng.random() < 0.3:
            data, detail = damage(data, rng)
        (table.parent / "metadata.jsonl").write_bytes(data)
        return Brought(_reads(rng), f"jsonl, {detail}")
    at = rng.randrange(len(body))
    name, text = body[at]
    changed = rng.choice(
        ([name], [name, text, "more"], ["", text], [f'"{name}', text], [rng.choice(("/etc/passwd", ".", "..",
        "no.mp4")), text],
         [name, ""], [name, "x" * 200_000], [name, "\0"], [name, rng.choice(WORDS)], body[at - 1],
         [name.upper(), text],
         [f" {name} ", f" {text} "], [f"../clips/{name}", text], [f"{name}\0", text])
    )  # fmt: skip
    lines = [header, *body[:at], changed, *body[at + 1 :]]
    detail = f"row {at}: {str(changed)[:50]}"
    how = rng.random()
    if how < 0.3:
        lines[0] = rng.choice(([], ["file_name"], ["text"], ["text", "file_name"], ["file_name", "file_name"],
                               ["FILE_NAME", "TEXT"], ["a", "b"], ["file_name", "text", "text"], ["", ""]))  # fmt: skip
        detail = f"header {lines[0]}"
    data = (
        rng.choice(("\n", "\n", "\r\n", "\r"))
        .join(rng.choice((",", ",", ";", "\t")).join(line) for line in lines)
        .encode()
    )
    if how > 0.8:
        data, detail = damage(good.encode(), rng)
    elif how > 0.7:
        code = rng.choice(("utf-16", "utf-32", "utf-8-sig", "cp037"))
        data, detail = good.encode(code), code
    table.write_bytes(data)
    return Brought(_reads(rng), f"csv, {detail}")


def make_media(folder: Path) -> None:
    """A small video of each container and a small image of each kind."""
    folder.mkdir()
    frames = (
        np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    )
    for ending, container, codec, pixels in CONTAINERS:
        with av.open(str(folder / f"video.{ending}"), "w", format=container) as file:
            stream = file.add_stream(codec, rate=Fraction(25 if codec == "mpeg2video" else 8))
            stream.width = stream.height = 32
            stream.pix_fmt = pixels
            for frame in frames:
                file.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels))
                )
            file.mux(stream.encode(None))
    for ending in IMAGES:
        Image.fromarray(frames[0]).save(folder / f"image.{ending}")


def _media(rng: random.Random, world: World, place: Path, source: Path) -> Brought:
    data, detail = damage(source.read_bytes(), rng)
    ending = source.suffix if rng.random() < 0.9 else rng.choice((".mp4", ".gif", ".png", ".webm"))
    folder = _clips(world, place, rng.choice((0, 3, 6)))
    bad = folder / f"bad{ending}"
    bad.write_bytes(data)
    (folder / "bad.txt").write_text(PROMPT)
    with (folder / "metadata.csv").open("a") as table:
        table.write(f"{bad.name},{PROMPT}\n")
    detail = f"{source.name}: {detail}" + (f", named {ending}" if ending != source.suffix else "")
    if rng.random() < 0.3:
        shutil.copytree(world.after("dit") / "run" / "model", place / "model")
        mode = rng.choice(("restyle", "animate", "extend", "loop"))
        argv = (
            "edit",
            mode,
            "-m",
            "model",
            "-v",
            f"clips/{bad.name}",
            "-p",
            PROMPT,
            "--steps",
            "1",
            "-o",
            "out/e.mp4",
        )
        return Brought(argv, detail)
    return Brought(_reads(rng), detail)


def _video(rng: random.Random, world: World, place: Path) -> Brought:
    ending = rng.choice(CONTAINERS)[0]
    return _media(rng, world, place, world.folder / "media" / f"video.{ending}")


def _image(rng: random.Random, world: World, place: Path) -> Brought:
    return _media(rng, world, place, world.folder / "media" / f"image.{rng.choice(IMAGES)}")


def _spoil(file: Path, rng: random.Random) -> str:
    """Damage a file of a run or a model, or take it away."""
    if rng.random() < 0.15:
        file.unlink()
        return f"{file.name} gone"
    broken = broken_json if file.suffix == ".json" else damage
    data, detail = broken(file.read_bytes(), rng)
    file.write_bytes(data)
    return f"{file.parent.name}/{file.name}: {detail}"


def _checkpoint(rng: random.Random, world: World, place: Path) -> Brought:
    """A run that was stopped before its end, one of its files damaged."""
    stage = stage_of("dit")
    for name in ("clips", "run"):
        shutil.copytree(world.after("dit") / name, place / name)
    run = place / "run"
    shutil.rmtree(run / "model")
    newest = max((run / "dit" / "checkpoints").iterdir())
    # The last step is still to do.
    shutil.rmtree(newest)
    kept = sorted((run / "dit" / "checkpoints").rglob("*.*"))
    files = [
        *kept,
        *kept,
        *(run / "cache").rglob("*.*"),
        *(run / "vae" / "model").iterdir(),
        run / "metrics.jsonl",
    ]
    files = sorted(files)
    spoilt = rng.choice([file for file in files if file.is_file()])
    detail = _spoil(spoilt, rng)
    logs = ("run/metrics.jsonl", "run/cache", "run/config.yaml", "run/dit/samples")
    compared = ["run/model/dit/diffusion_pytorch_model.safetensors", "run/metrics.jsonl"]
    # The numbers of steps long done are lost, and no step is done again for them.
    if spoilt.name == "metrics.jsonl":
        compared.pop()
    return Brought(stage.argv, detail, ("run/",), logs, "dit", tuple(compared))


def _model(rng: random.Random, world: World, place: Path) -> Brought:
    shutil.copytree(world.after("dit") / "run" / "model", place / "model")
    files = [file for file in sorted((place / "model").rglob("*")) if file.is_file()]
    detail = _spoil(rng.choice(files), rng)
    argv = rng.choice(
        (
            ("sample", "-m", "model", "-p", PROMPT, "--steps", "1", "-o", "out/s.mp4"),
            ("sample", "-m", "model", "-p", PROMPT, "--steps", "1", "-o", "out/s.mp4"),
            ("export", "-m", "model", "-o", "small"),
            tuple(
                shlex.split("distill -m model -c tiny.yaml -o run --samples 4 --steps 1 -s train_dit.steps=2")
            ),
        )
    )
    return Brought(argv, detail)


def _result(rng: random.Random, world: World, place: Path) -> Brought:
    """A file of results that another command reads."""
    what = rng.choice(("calibration", "calibration", "law", "preset", "results", "ladder", "scores", "args"))
    if what in ("calibration", "law"):
        file = RESULTS / ("calibration_zen-4_2026-11-22.json" if what == "calibration" else "ladder/law.json")
        data, detail = broken_json(file.read_bytes(), rng)
        (place / "bad.json").write_bytes(data)
        return Brought(("report", f"--{what}", "bad.json", "-o", "rep"), f"{what} {detail}")
    if what in ("preset", "ladder"):
        file = (
            RESULTS.parents[1]
            / "configs"
            / ("report/measured.yaml" if what == "preset" else "ladder/smoke.yaml")
        )
        data, detail = broken_yaml(file.read_text(), rng)
        (place / "bad.yaml").write_bytes(data)
        argv = ("report", "--preset", "bad.yaml", "-o", "rep")
        if what == "ladder":
            argv = ("scale", "run", "--ladder", "bad.yaml", "--dry-run", "-o", "ladder")
        return Brought(argv, f"{what} {detail}")
    if what == "results":
        (place / "ladder").mkdir()
        for name in ("results.jsonl", "ladder.yaml"):
            shutil.copy2(RESULTS / "ladder" / name, place / "ladder")
        detail = _spoil(place / "ladder" / rng.choice(("results.jsonl", "ladder.yaml")), rng)
        return Brought(("scale", "fit", "-o", "ladder"), detail)
    if what == "scores":
        shutil.copytree(world.after("dit") / "run" / "model", place / "model")
        data, detail = broken_json((RESULTS / "modes" / "evaluate.json").read_bytes(), rng)
        (place / "evaluate.json").write_bytes(data)
        return Brought(
            ("export", "-m", "model", "-o", "small", "--scores", "evaluate.json"), f"scores {detail}"
        )
    data, detail = broken_yaml(
        "config: {num_layers: 1, num_attention_heads: 2}\nlatent_size: [3, 8, 8]\ntext_tokens: 8", rng
    )
    (place / "args.yaml").write_bytes(data)
    return Brought(
        ("flops", "--diffusers", "CogVideoXTransformer3DModel", "--args", "args.yaml"), f"args {detail}"
    )


def _prompt(rng: random.Random, world: World, place: Path) -> Brought:
    shutil.copytree(world.after("dit") / "run" / "model", place / "model")
    text = rng.choice(
        (*WORDS, "a" * 100_000, "red " * 20_000, "\udcff\udcfe", "\ud83d", "\x1b[31mred\x07", "شكل أحمر",
        "红色的圆", "\u200b",
         "--help", "-", "a\nb\r\nc", "\t", "[/]", "[link=http://x]y[/link]", "{caption}", "A RED CIRCLE",
         "a\u0301" * 500,
         "".join(chr(rng.randrange(32, 0x2FFF)) for _ in range(200)), "\U000e0041", "<script>", "\ufffe")
    )  # fmt: skip
    if rng.random() < 0.4:
        data = rng.choice(
            (
                text.encode("utf-8", "surrogatepass"),
                text.encode("utf-16", "surrogatepass"),
                rng.randbytes(300),
            )
        )
        (place / "prompts.txt").write_bytes(data)
        return Brought(
            (
                "evaluate",
                "prompts",
                "-m",
                "model",
                "--prompts",
                "prompts.txt",
                "--steps",
                "1",
                "-o",
                "judged",
            ),
            f"file {data[:40]!r}",
        )
    return Brought(
        ("sample", "-m", "model", f"--prompt={text}", "--steps", "1", "-o", "out/s.mp4"), repr(text[:40])
    )


def _number(rng: random.Random, world: World, place: Path) -> Brought:
    shutil.copytree(world.after("dit") / "run" / "model", place / "model")
    option = rng.choice(
        ("--frames", "--height", "--width", "--steps", "--guidance", "--seed", "--guidance-interval")
    )
    value = rng.choice(
        (
            "-1",
            "0",
            "7",
            "1.5",
            "nan",
            "inf",
            "-inf",
            "x",
            "",
            "1e400",
            str(2**31),
            str(2**64),
            str(10**30),
            "٣",
        )
    )
    values = (value, rng.choice(("1", "0", "nan"))) if option == "--guidance-interval" else (value,)
    argv = ("sample", "-m", "model", "-p", PROMPT, "-o", "out/s.mp4", option, *values)
    if option == "--steps" and value == "7":
        argv = (
            "sample",
            "-m",
            "model",
            "-p",
            PROMPT,
            "-o",
            rng.choice(("out", "s.avi", "", "tiny.yaml", "a\0.mp4")),
        )
    return Brought(argv, " ".join(argv[5:])[:60])


# Their shares of all malformed inputs.
FAMILIES: dict[str, tuple[int, Callable[[random.Random, World, Path], Brought]]] = {
    "config": (50, _config),
    "override": (35, _override),
    "table": (45, _table),
    "video": (65, _video),
    "image": (15, _image),
    "checkpoint": (30, _checkpoint),
    "model folder": (20, _model),
    "results": (15, _result),
    "prompt": (15, _prompt),
    "number": (10, _number),
}
