"""The command that judges videos, and models by them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from minisora.cli.options import check_folder, console, finite, refuse_beside
from minisora.limits import LAST_SEED, MAX_COUNT, MAX_GUIDANCE


def evaluate(
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Judge samples of this model.")] = None,
    videos: Annotated[
        Path | None, typer.Option("--videos", help="Or judge this folder of mp4 files with metadata.csv.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The model's run folder: also say if it is learning, stuck or memorising."),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(help="72: colour x shape x direction; all: and walls, day, night; or a text file."),
    ] = "72",
    samples_per_prompt: Annotated[
        int, typer.Option(min=1, max=MAX_COUNT, help="More samples, narrower intervals.")
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="The same seed gives the same samples.")
    ] = 0,
    steps: Annotated[
        str | None,
        typer.Option(
            "--num-inference-steps",
            "--steps",
            help="Default from the model; 1,2,4,8 compares them: steps.json.",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance-scale",
            "--guidance",
            min=0.0,
            max=MAX_GUIDANCE,
            callback=finite,
            help="Default from the model.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Videos sampled at a time.")] = 8,
    sizes: Annotated[
        str | None, typer.Option(help="Instead: compare sizes, such as 17x64x64,17x48x80: sizes.json.")
    ] = None,
    modes: Annotated[
        bool, typer.Option("--modes", help="Instead: animate, extend, connect, loop, inpaint, restyle.")
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder of evaluate.json and failures.png, or modes.json, sizes.json, steps.json.",
        ),
    ] = Path("runs/evaluate"),
) -> None:
    """Judge what videos show against their prompts, without a learned network, and the judge itself."""
    from minisora.evaluate.steps import parse_steps, run_steps

    check_folder(out)
    numbers = parse_steps(steps) if steps is not None else []
    given = {"--videos": videos is not None, "--run": run is not None}
    more = {f"--samples-per-prompt {samples_per_prompt}": samples_per_prompt != 1}
    if len(numbers) > 1:
        refuse_beside(f"--steps {steps}", {**given, "--sizes": sizes is not None, "--modes": modes})
    if sizes is not None:
        refuse_beside("--sizes", {**given, "--modes": modes})
    if modes:
        refuse_beside("--modes", {**given, **more})
    if videos is not None and model is None:
        sampling = {"--prompts": prompts != "72", "--steps": steps is not None, "--seed": seed != 0}
        refuse_beside("--videos", {**sampling, **more, "--guidance": guidance is not None})
    shared: dict[str, Any] = {
        "model": model,
        "prompts": prompts,
        "seed": seed,
        "guidance": guidance,
        "batch_size": batch_size,
    }
    if len(numbers) > 1:
        run_steps(out, console, steps=numbers, samples_per_prompt=samples_per_prompt, **shared)
        return
    shared["steps"] = numbers[0] if numbers else None
    if sizes is not None:
        from minisora.evaluate.sizes import parse_sizes, run_sizes

        wanted = parse_sizes(sizes)
        run_sizes(out, console, sizes=wanted, samples_per_prompt=samples_per_prompt, **shared)
    elif modes:
        from minisora.evaluate.run_modes import run_modes

        run_modes(out, console, **shared)
    else:
        from minisora.evaluate.run import run_evaluation
        from minisora.training.latents import cache_keys

        run_evaluation(
            out,
            console,
            videos=videos,
            run=run,
            cache_keys=cache_keys,
            samples_per_prompt=samples_per_prompt,
            **shared,
        )
