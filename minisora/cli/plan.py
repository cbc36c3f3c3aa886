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


class Precision(StrEnum):
    """Of products and weights."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"
    float8 = "float8"


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
            help="A model that disclosed its shape, or words of its name: 'wan 14b'. Without: --params."
        ),
    ] = None,
    params: Annotated[str | None, typer.Option(help="A model of so many weights instead: 5B, 675M.")] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="A config of ours instead: a YAML file or a shipped name."),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="full, factorised, divided, causal, causal:CHUNK or window:FRAMES, in latent frames."
        ),
    ] = None,
    vae: Annotated[str, typer.Option(help="Strides of the VAE, with --params.")] = "4x8x8",
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
    checkpointing: Annotated[
        Checkpointing, typer.Option(help="With --train: what the backward pass computes again.")
    ] = Checkpointing.none,
    samples: Annotated[str | None, typer.Option(help="With --train: clips seen in all, such as 10M.")] = None,
    budget: Annotated[
        float,
        typer.Option(
            min=0.0, max=MAX_CLIPS, callback=finite, help="With --train: how many clips so many $ buy."
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
    from minisora.plan.subject import parse_count, parse_numbers

    if under is not None:
        refuse_beside("--under, which is of a clip's time", {"--train": train})
    subject = _subject(model, params, config, attention, vae, patch, layers, width, hidden, text, text_tokens)
    sides = parse_numbers(size, 2) if size is not None else None
    if size is not None and sides is None:
        raise UserError(f"--size {size} is not HEIGHTxWIDTH in pixels, such as 480x832")
    if seconds is not None:
        refuse_beside("--seconds", {"--frames": frames is not None})
    if not train:
        refuse_beside(
            "clips without --train",
            {
                "--samples": samples is not None,
                "--budget": bool(budget),
                "--checkpointing": checkpointing is not Checkpointing.none,
            },
        )
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
        own: dict[str, Any] = {
            "--vae": vae,
            "--patch": patch,
            "--layers": layers,
            "--width": width,
            "--hidden": hidden,
        }
        own |= {"--text": text.value, "--text-tokens": str(text_tokens)}
        words = [model] if model else ["--params", params] if params else ["--config", config]
        if params:
            words += [part for name, value in own.items() if value for part in (name, str(value))]
        write_whole(page, render(made, shlex.join(["minisora", "plan", *map(str, words)]), under))
        say(console, f"wrote {page}")


def _subject(
    model: str | None,
    params: str | None,
    config: str | None,
    attention: str | None,
    vae: str,
    patch: str,
    layers: int | None,
    width: int | None,
    hidden: int | None,
    text: Text,
    text_tokens: int,
) -> "Subject":
    """The model that is asked about."""
    from minisora.plan.subject import named, of_config, of_size, parse_attention, parse_count, parse_triple

    given = [text for text in (model, params, config) if text is not None]
    if len(given) != 1:
        raise UserError("give one of MODEL, --params and --config: minisora plan 'wan 14b', or --params 5B")
    seen = parse_attention(attention) if attention is not None else None
    if params is not None:
        return of_size(
            parse_count(params, "--params"),
            attention=seen or "full",
            vae=parse_triple(vae, "--vae"),
            patch=parse_triple(patch, "--patch"),
            layers=layers,
            width=width,
            hidden=hidden,
            text=text.value,
            text_tokens=text_tokens,
        )
    shaped = {"--vae": vae != "4x8x8", "--patch": patch != "1x2x2"}
    shaped |= {
        "--text": text is not Text.joint,
        "--text-tokens": text_tokens != 256,
        "--layers": layers is not None,
        "--width": width is not None,
        "--hidden": hidden is not None,
    }
    refuse_beside("a model that has a shape", shaped)
    if model is not None:
        subject = named(model)
    else:
        from minisora.config import load

        assert config is not None
        subject = of_config(load(config), config)
    return subject.seeing(seen) if seen is not None else subject
