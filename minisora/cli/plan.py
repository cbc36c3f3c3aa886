"""The command of the planner."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minisora.cli.options import (
    JsonOption,
    check_output,
    console,
    finite,
    refuse_beside,
    typed,
    write_result,
)
from minisora.errors import UserError
from minisora.limits import MAX_CARDS, MAX_CLIPS, MAX_FRAMES, MAX_SECONDS
from minisora.screen import say

if TYPE_CHECKING:
    from minisora.plan.subject import Subject


# Before the name of a class of diffusers.
FOREIGN = "diffusers:"


class Precision(StrEnum):
    """Of products and weights."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"
    float8 = "float8"
    int8 = "int8"


class Text(StrEnum):
    """How the prompt meets the video."""

    joint = "joint"
    cross = "cross"


class Place(StrEnum):
    """Where weights are while a clip is made."""

    resident = "resident"
    swapped = "swapped"
    streamed = "streamed"


class Checkpointing(StrEnum):
    """What a backward pass computes again."""

    none = "none"
    selective = "selective"
    full = "full"


def plan(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model that disclosed its shape, or words of its name: 'wan 14b'; or diffusers:CLASS. "
            "Without: --params."
        ),
    ] = None,
    params: Annotated[str | None, typer.Option(help="A model of so many weights instead: 5B, 675M.")] = None,
    active: Annotated[
        str | None,
        typer.Option(help="With --params, of experts: so many weights that a token meets, such as 3B."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="With diffusers:CLASS: an argument of it, e.g. --set num_layers=20, or of the VAE, --set vae.z_dim=48 "
            "(repeatable).",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="A config of ours instead: a YAML file or a shipped name."),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="full, factorised, divided, causal, causal:CHUNK or window:FRAMES, in latent frames, or "
            "tile:FRAMESxROWSxCOLUMNS, in tokens."
        ),
    ] = None,
    vae: Annotated[
        str, typer.Option(help="Strides of the VAE, with --params; with diffusers:CLASS, diffusers:CLASS.")
    ] = "4x8x8",
    patch: Annotated[str, typer.Option(help="Latent cells of a token, with --params.")] = "1x2x2",
    layers: Annotated[int | None, typer.Option(min=1, max=10_000, help="Blocks, with --params.")] = None,
    width: Annotated[int | None, typer.Option(min=1, max=1 << 20, help="Channels, with --params.")] = None,
    text: Annotated[
        Text, typer.Option(help="With --params: the prompt in the sequence, or seen by cross-attention.")
    ] = Text.joint,
    text_tokens: Annotated[int, typer.Option(min=0, max=1 << 20, help="Of the prompt, with --params.")] = 256,
    hidden: Annotated[int | None, typer.Option(min=1, max=1 << 22, help="Of the MLP, with --params.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=MAX_SECONDS, callback=finite, help="Length of the clip; default as the model's."
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, max=MAX_FRAMES, help="The same in frames.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.01, max=1000.0, callback=finite, help="Frames a second.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=100_000, help="Denoising steps.")] = None,
    passes: Annotated[
        int | None, typer.Option(min=1, max=4, help="Passes a step: 2 with guidance, 1 without or distilled.")
    ] = None,
    reused: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.99,
            callback=finite,
            help="Share of the passes that a cache between steps replaces.",
        ),
    ] = 0.0,
    card: Annotated[
        str, typer.Option(help="A card, or words of its name; or a calibration.json of yours.")
    ] = "H100 SXM",
    cards: Annotated[int, typer.Option(min=1, max=MAX_CARDS, help="How many.")] = 1,
    data: Annotated[
        int | None, typer.Option(min=1, max=MAX_CARDS, help="Ranks with clips of their own.")
    ] = None,
    fsdp: Annotated[
        int | None, typer.Option(min=1, max=MAX_CARDS, help="Ranks that share the weights.")
    ] = None,
    sequence: Annotated[
        int | None, typer.Option(min=1, max=MAX_CARDS, help="Ranks that share the tokens of a clip.")
    ] = None,
    tensor: Annotated[int, typer.Option(min=1, max=MAX_CARDS, help="Ranks that share every matrix.")] = 1,
    precision: Annotated[Precision, typer.Option(help="Of products and weights.")] = Precision.bfloat16,
    batch: Annotated[int, typer.Option(min=1, max=1 << 20, help="Clips at once, of each data rank.")] = 1,
    place: Annotated[
        Place, typer.Option(help="Weights on the card always, while they work, or a block at a time.")
    ] = Place.resident,
    tiles: Annotated[bool, typer.Option("--tiles", help="Decode the picture in tiles.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Plan a training instead of clips.")] = False,
    train_vae: Annotated[
        bool,
        typer.Option("--train-vae", help="Plan a training of its VAE against a discriminator of patches."),
    ] = False,
    rank: Annotated[
        int,
        typer.Option(min=0, max=1 << 20, help="With --train: of adapters that learn (LoRA); 0: all weights."),
    ] = 0,
    checkpointing: Annotated[
        Checkpointing, typer.Option(help="With --train: what the backward pass computes again.")
    ] = Checkpointing.none,
    samples: Annotated[
        str | None, typer.Option(help="With --train or --train-vae: clips seen in all, such as 10M.")
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=MAX_CLIPS,
            callback=finite,
            help="With --train or --train-vae: how many clips so many $ buy.",
        ),
    ] = 0.0,
    under: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1e9, callback=finite, help="The cheapest ways to a clip in so many seconds."
        ),
    ] = None,
    back_test: Annotated[
        bool, typer.Option("--back-test", help="Only: predictions beside everything that was disclosed.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="Also write a page with sliders for all of this to this file, NAME.html."),
    ] = None,
    json_: JsonOption = None,
) -> None:
    """What a video model will cost: memory, seconds and money of a clip or of a training, on any cards.

    A clip as the model's makers made it, on one card:

        minisora plan "wan 14b"

    Another clip on eight cards that share it, and the cheapest way to it within a minute:

        minisora plan "wan 14b" --seconds 5 --size 480x832 --cards 8 --under 60

    A model of your own by its size, with attention over 5 latent frames, and its training on 256 cards:

        minisora plan --params 5B --attention window:5 --vae 4x16x16 --patch 1x1x1

        minisora plan --params 5B --train --cards 256 --checkpointing full --samples 50M

    A model of diffusers as its class makes it, half as deep, and adapters of it (LoRA):

        minisora plan diffusers:WanTransformer3DModel --set num_layers=20 --train --rank 32

    Its VAE instead, on short clips of a small picture, against a discriminator:

        minisora plan "wan 14b" --train-vae --frames 17 --size 256x256 --batch 2 --cards 8 --samples 5M

    How far off it is:

        minisora plan --back-test
    """
    check_output(json_, (".json",))
    check_output(page, (".html",))
    if back_test:
        others = {
            name: given for name, given in typed(context).items() if name not in ("--back-test", "--json")
        }
        refuse_beside("--back-test", others)
        from minisora.plan.scores import back_test_table, back_test_tree

        console.print(back_test_table())
        if json_ is not None:
            write_result(json_, back_test_tree())
        return
    from minisora.plan.answer import plan as answer
    from minisora.plan.question import ask, card_named
    from minisora.plan.remedies import cheapest, fitting, verdict
    from minisora.plan.subject import of_size, parse_attention, parse_count, parse_numbers, parse_triple

    if under is not None:
        refuse_beside("--under, which is of a clip's time", {"--train": train})
    given = typed(context)
    seen = parse_attention(attention) if attention is not None else None
    if sum(given[name] for name in ("MODEL", "--params", "--config")) != 1:
        raise UserError("give one of MODEL, --params and --config: minisora plan 'wan 14b', or --params 5B")
    shape = ("--patch", "--layers", "--width", "--hidden", "--text", "--text-tokens", "--active")
    foreign = model is not None and model.startswith(FOREIGN)
    if params is None:
        refuse_beside("a model that has a shape", {name: given[name] for name in shape})
    if not foreign:
        refuse_beside("a model that is no diffusers:CLASS", {"--set": given["--set"]})
    if params is not None:
        subject = of_size(
            parse_count(params, "--params"),
            attention=seen or "full",
            vae=parse_triple(vae, "--vae"),
            patch=parse_triple(patch, "--patch"),
            layers=layers,
            width=width,
            hidden=hidden,
            text=text.value,
            text_tokens=text_tokens,
            active=parse_count(active, "--active") if active is not None else None,
        )
    elif foreign:
        subject = _of_diffusers(str(model), vae if given["--vae"] else None, set_ or [])
    else:
        refuse_beside("a model that has a shape", {"--vae": given["--vae"]})
        subject = _named(model, config)
    if seen is not None:
        subject = subject.seeing(seen)
    sides = parse_numbers(size, 2) if size is not None else None
    if size is not None and sides is None:
        raise UserError(f"--size {size} is not HEIGHTxWIDTH in pixels, such as 480x832")
    if seconds is not None:
        refuse_beside("--seconds", {"--frames": frames is not None})
    if train_vae:
        idle = (
            "--train",
            "--attention",
            "--steps",
            "--passes",
            "--reused",
            "--place",
            "--tiles",
            "--under",
            "--page",
        )
        refuse_beside("--train-vae", {name: given[name] for name in (*idle, "--rank", "--checkpointing")})
    elif not train:
        learning = ("--samples", "--budget", "--rank", "--checkpointing")
        refuse_beside("clips without --train", {name: given[name] for name in learning})
    question = ask(
        subject,
        card=card_named(card),
        seconds=seconds,
        frames=frames,
        fps=fps,
        size=(sides[0], sides[1]) if sides else None,
        steps=steps,
        passes=passes,
        cards=cards,
        data=data,
        fsdp=fsdp,
        sequence=sequence,
        tensor=tensor,
        precision=precision.value,
        batch=batch,
        place=place.value,
        tiles=tiles,
        train=train,
        vae=train_vae,
        rank=rank,
        checkpointing=checkpointing.value,
        reused=reused,
        samples=parse_count(samples, "--samples") if samples is not None else 0.0,
        budget=budget,
    )
    made = answer(question)
    ways = cheapest(question, under) if under is not None else None
    tree = made.to_dict()
    console.print(made.table())
    for line in made.notes():
        say(console, f"  {line}", style="dim")
    say(console, verdict(made), style="" if made.fits is not False else "bold")
    tree["fitting"] = fitting(made) if made.fits is False else []
    for line in tree["fitting"]:
        say(console, f"  fits with {line}")
    if made.fits is False and not tree["fitting"]:
        say(console, "  nothing that was tried fits: a smaller --size, fewer --frames or a smaller model")
    if ways is not None:
        console.print(ways.table())
        tree["under"] = ways.to_dict()
    if json_ is not None:
        write_result(json_, tree)
    if page is not None:
        from minisora.files import write_whole
        from minisora.plan.sliders import render

        page.parent.mkdir(parents=True, exist_ok=True)
        own: dict[str, Any] = {"--vae": vae, "--patch": patch, "--layers": layers, "--width": width}
        own |= {"--hidden": hidden, "--text": text.value, "--text-tokens": text_tokens, "--active": active}
        words = [model] if model else ["--params", params] if params else ["--config", config]
        words += [part for name, value in own.items() if given[name] for part in (name, value)]
        words += [part for value in set_ or [] for part in ("--set", value)]
        write_whole(page, render(made, shlex.join(["minisora", "plan", *map(str, words)]), under))
        say(console, f"wrote {page}")


def _named(model: str | None, config: str | None) -> "Subject":
    """A model by its name, or one of ours by its config."""
    from minisora.plan.subject import named, of_config

    if model is not None:
        return named(model)
    from minisora.config import load

    assert config is not None
    return of_config(load(config), config)


def _of_diffusers(model: str, vae: str | None, settings: list[str]) -> "Subject":
    """A class of diffusers with some of its arguments, and of its VAE."""
    import yaml

    if vae is not None and not vae.startswith(FOREIGN):
        raise UserError(f"--vae {vae} beside {model} must be a class too, such as diffusers:AutoencoderKLWan")
    own: dict[str, Any] = {}
    beside: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {setting}: '{text}' is no value") from error
        if not key or value is None:
            raise UserError(f"--set {setting} is not KEY=VALUE, such as num_layers=20")
        place = beside if key.startswith("vae.") else own
        place[key.removeprefix("vae.")] = tuple(value) if isinstance(value, list) else value
    # Here, as it imports torch and diffusers.
    from minisora.plan.foreign import diffusers_subject

    vae = vae.removeprefix(FOREIGN) if vae is not None else None
    return diffusers_subject(model.removeprefix(FOREIGN), own, vae=vae, vae_settings=beside)
