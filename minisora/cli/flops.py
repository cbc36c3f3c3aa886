"""Commands of the FLOP meter: flops, calibrate."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minisora.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    check_output,
    console,
    load_config,
    refuse_beside,
    show,
)
from minisora.errors import UserError
from minisora.screen import say

# As in minisora.flops.plots, which is slow to import.
_PLOTS = (".png", ".svg")


class Device(StrEnum):
    """Where to count."""

    meta = "meta"
    cpu = "cpu"
    cuda = "cuda"


class RealDevice(StrEnum):
    """Where to time."""

    cpu = "cpu"
    cuda = "cuda"


class PublishedTable(StrEnum):
    """A table of published models."""

    dit = "dit"


def flops(
    config: ConfigOption = "toy",
    set_: SetOption = None,
    device: Annotated[
        Device, typer.Option(help="meta counts by shapes alone; cpu and cuda run it.")
    ] = Device.meta,
    table: Annotated[
        PublishedTable | None, typer.Option(help="dit: the DiT paper's thirteen models, published | counted.")
    ] = None,
    diffusers: Annotated[
        str | None, typer.Option(help="A diffusers transformer, e.g. CogVideoXTransformer3DModel.")
    ] = None,
    args: Annotated[
        Path | None, typer.Option(help="YAML for --diffusers: config, latent_size, text_tokens, inputs.")
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also time the passes and report MFU (on cpu or cuda).")
    ] = False,
    json_: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Attention's share against tokens, as .png or .svg.")
    ] = None,
) -> None:
    """Count MACs and FLOPs of a real forward pass, attention included, three ways that must agree."""
    check_output(json_, (".json",), [Path(config), *([args] if args else [])])
    check_output(plot, _PLOTS)
    own = {
        "--config": config != "toy",
        "--set": bool(set_),
        "--device": device is not Device.meta,
        "--time": time,
    }
    if table is not None:
        refuse_beside("--table", {"--diffusers": diffusers is not None, "--args": args is not None, **own})
    elif diffusers is not None:
        refuse_beside("--diffusers", own)
    elif args is not None:
        raise UserError(f"--args {args} belongs to --diffusers MODEL: add it, or leave --args out")
    _check_device(device, "cpu or meta")
    if table is not None:
        from minisora.flops.dit_paper import count_table

        show(count_table(), json_)
    elif diffusers is not None:
        from minisora.config_files import read_yaml
        from minisora.flops.count_module import count_diffusers

        show(count_diffusers(diffusers, read_yaml(args) if args else None), json_)
    else:
        from minisora.flops.ledger import count_config

        show(count_config(load_config(config, set_), device=device.value), json_)
    if time:
        from minisora.flops.timing import time_config

        timed = time_config(
            load_config(config, set_), device="cpu" if device is Device.meta else device.value
        )
        show(timed, json_.with_name(f"{json_.stem}-time.json") if json_ else None)
        for warning in timed.warnings():
            say(console, warning, style="yellow")
    if plot is not None:
        from minisora.flops.plots import save_plot
        from minisora.report.assumptions import load_preset
        from minisora.report.figures.curves import attention_share
        from minisora.report.figures.style import style

        with style():
            save_plot(attention_share(load_preset("measured")).figure, plot)
        say(console, f"wrote {plot}")


def calibrate(
    files: Annotated[list[Path] | None, typer.Argument(help="Calibrations to --compare.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The calibration file.")] = Path(
        "calibration.json"
    ),
    device: Annotated[
        RealDevice, typer.Option(help="cpu: about a minute on two idle cores.")
    ] = RealDevice.cpu,
    plot: Annotated[Path | None, typer.Option(help="Achieved FLOP/s against size, as .png or .svg.")] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Take none: set those of the files side by side, or every machine measured so far.",
        ),
    ] = False,
) -> None:
    """Sweep real passes on this machine and fit what they cost: MACs, time, MFU. `minisora report` reads it."""
    if compare:
        others = {
            "--out": out != Path("calibration.json"),
            "--device": device is not RealDevice.cpu,
            "--plot": plot is not None,
        }
        refuse_beside("--compare", others)
        from minisora.flops.machines import compare as machines_of
        from minisora.flops.machines import machine_table

        table = machine_table(machines_of(files or []))
        console.print(table)
        return
    if files:
        raise UserError(f"{files[0]} would do nothing: add --compare, or name the new calibration with --out")
    from minisora.flops.sweep import calibrate as sweep

    check_output(out, (".json",))
    check_output(plot, _PLOTS)
    _check_device(device, "cpu")
    with console.status("calibrating") as status:
        calibration = sweep(
            device=device.value, progress=lambda done, total: status.update(f"calibrating {done}/{total}")
        )
    calibration.save(out)
    console.print(calibration.table())
    say(console, f"wrote {out}")
    if plot is not None:
        from minisora.flops.plots import plot_roofline

        plot_roofline(calibration, plot)
        say(console, f"wrote {plot}")


def _check_device(device: Device | RealDevice, others: str) -> None:
    """Refuse cuda where there is none."""
    if device.value == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(f"--device cuda: no CUDA device here: use --device {others}")
