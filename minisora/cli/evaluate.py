"""The commands that judge videos, and models by them: one for each question."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from minisora.cli.options import (
    GuidanceOption,
    ModelOption,
    StepsOption,
    check_folder,
    console,
    refuse_beside,
)
from minisora.errors import UserError
from minisora.limits import LAST_SEED, MAX_COUNT
from minisora.screen import say

PromptsOption = Annotated[
    str, typer.Option(help="72: colour x shape x direction; all: and walls, day, night; or a text file.")
]
SamplesOption = Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="More samples, narrower intervals.")]
SeedOption = Annotated[int, typer.Option(min=0, max=LAST_SEED, help="The same seed gives the same samples.")]
BatchOption = Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Videos sampled at a time.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")]
_OUT = Path("runs/evaluate")


def evaluate_prompts(
    model: ModelOption,
    prompts: PromptsOption = "72",
    samples_per_prompt: SamplesOption = 1,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch_size: BatchOption = 8,
    out: OutOption = _OUT,
) -> None:
    """Judge a model's samples of every prompt, and the judge itself: evaluate.json, failures.png, worst.png."""
    from minisora.evaluate.compare import Sampling, evaluate_prompts, run_experiment

    check_folder(out)
    sampling = Sampling(model, prompts, samples_per_prompt, seed, steps, guidance, batch_size)
    run_experiment(out, console, lambda bar: evaluate_prompts(sampling, bar))


def evaluate_run(
    run: Annotated[Path, typer.Argument(help="The run folder, the --out of minisora train.")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="The model that it trained; default: RUN/model.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_COUNT, help="Samples, for captions of held-out clips; default: 48."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Frechet distance also by r3d_18, mc3_18, r2plus1d_18, or a file of such weights."),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Judge prompts of shapes instead, as `prompts`: evaluate.json.")
    ] = None,
    samples_per_prompt: SamplesOption = 1,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch_size: BatchOption = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the results; default: the run folder, with --prompts runs/evaluate.",
        ),
    ] = None,
) -> None:
    """Judge a run on its own held-out clips, whatever they show, and advise: evaluation.json, .png, and its page."""
    from minisora.evaluate.compare import Sampling, evaluate_prompts, run_experiment

    if prompts is not None:
        refuse_beside("--prompts", {"--samples": samples is not None, "--features": features is not None})
        check_folder(out or _OUT)
        sampling = Sampling(
            model or run / "model", prompts, samples_per_prompt, seed, steps, guidance, batch_size
        )
        run_experiment(out or _OUT, console, lambda bar: evaluate_prompts(sampling, bar, run))
        return
    from minisora.evaluate.gathered_clips import NUM_SAMPLES, OwnClips
    from minisora.evaluate.own_clips import evaluate_own_clips

    if samples_per_prompt != 1:
        raise UserError("--samples-per-prompt goes with --prompts: without them, --samples says how many")
    check_folder(out or run)
    options = OwnClips(run, model, samples or NUM_SAMPLES, features, seed, steps, guidance, batch_size)
    run_experiment(out or run, console, lambda bar: evaluate_own_clips(options, bar))
    if out is None and model is None:
        from minisora.demo.run_page import renew_page

        renew_page(run, console)


def evaluate_videos(
    videos: Annotated[Path, typer.Argument(help="Folder of mp4 files with metadata.csv.")],
    out: OutOption = _OUT,
) -> None:
    """Judge a folder of videos by their captions, whatever made them: evaluate.json, failures.png, worst.png."""
    from minisora.evaluate.compare import evaluate_folder, run_experiment

    check_folder(out)
    run_experiment(out, console, lambda bar: evaluate_folder(videos, bar))


def evaluate_steps(
    model: ModelOption,
    steps: Annotated[str, typer.Option(help="The numbers of steps to compare.")] = "1,2,4,8,16,32",
    prompts: PromptsOption = "72",
    samples_per_prompt: SamplesOption = 1,
    seed: SeedOption = 0,
    guidance: GuidanceOption = None,
    batch_size: BatchOption = 8,
    out: OutOption = _OUT,
) -> None:
    """Compare numbers of sampling steps on the same noise, and name the fewest that are enough: steps.json."""
    from minisora.evaluate.compare import Sampling, compare_steps, parse_steps, run_experiment

    check_folder(out)
    numbers = parse_steps(steps)
    sampling = Sampling(model, prompts, samples_per_prompt, seed, None, guidance, batch_size)
    run_experiment(out, console, lambda bar: compare_steps(sampling, numbers, bar))


def evaluate_sizes(
    model: ModelOption,
    sizes: Annotated[str, typer.Option(help="FRAMESxHEIGHTxWIDTH, as many as wanted: 17x64x64,17x48x80.")],
    prompts: PromptsOption = "72",
    samples_per_prompt: SamplesOption = 1,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch_size: BatchOption = 8,
    out: OutOption = _OUT,
) -> None:
    """Compare lengths and frame sizes on the same prompts: sizes.json, sizes.png."""
    from minisora.evaluate.compare import Sampling, compare_sizes, parse_sizes, run_experiment

    check_folder(out)
    parsed = parse_sizes(sizes)
    sampling = Sampling(model, prompts, samples_per_prompt, seed, steps, guidance, batch_size)
    run_experiment(out, console, lambda bar: compare_sizes(sampling, parsed, bar))


def evaluate_modes(
    model: ModelOption,
    prompts: PromptsOption = "72",
    seed: SeedOption = 0,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    batch_size: BatchOption = 8,
    out: OutOption = _OUT,
) -> None:
    """Judge every mode: animate, extend, connect, loop, inpaint, keyframes, restyle: modes.json, modes.png."""
    from minisora.evaluate.compare import Sampling, compare_modes, run_experiment

    check_folder(out)
    sampling = Sampling(model, prompts, 1, seed, steps, guidance, batch_size)
    run_experiment(out, console, lambda bar: compare_modes(sampling, bar))


class OldForm(TyperGroup):
    """A group that for one more version takes the options that chose the experiment before it had commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command that is meant before the options, and say so on stderr."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            old, args = shlex.join(args), new_form(args)
            line = f"'minisora evaluate {old}' is now 'minisora evaluate {shlex.join(args)}'"
            say(Console(stderr=True), f"note: {line}; the old form goes with the next version")
        return super().parse_args(ctx, args)


def new_form(args: list[str]) -> list[str]:
    """The arguments of the old form with its command; options that do not go with it are left for it to refuse."""
    for old, new in (("--num-inference-steps", "--steps"), ("--guidance-scale", "--guidance")):
        args = [new + arg.removeprefix(old) if arg.split("=", 1)[0] == old else arg for arg in args]
    names = [arg.split("=", 1)[0] for arg in args]
    # What was a flag or an option is now the command and, for two of them, its argument.
    for name in ("videos", "run", "modes"):
        if f"--{name}" in names:
            index = names.index(f"--{name}")
            args = [*args[:index], *args[index].split("=", 1)[1:], *args[index + 1 :]]
            # A run's model was judged on prompts of shapes, these where none were named.
            default = ["--prompts", "72"] if name == "run" and "--prompts" not in names else []
            return [name, *args, *default]
    if "--sizes" in names:
        return ["sizes", *args]
    index = names.index("--steps") if "--steps" in names else len(args)
    several = any("," in arg for arg in args[index : index + (2 if "--steps" in args else 1)])
    return ["steps" if several else "prompts", *args]
