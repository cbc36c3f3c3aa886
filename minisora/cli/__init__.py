"""The one entry point: parse, call, print. No logic, and no heavy import outside a command."""

import errno
import sys
from typing import Any

import typer

from minisora.cli import (
    caption,
    data,
    demo,
    edit,
    evaluate,
    flops,
    plan,
    report,
    sample,
    scale,
    studio,
    train,
    world_plan,
    worlds,
)
from minisora.errors import UserError
from minisora.memory import is_out_of_memory, out_of_memory
from minisora.screen import plain

app = typer.Typer(
    help="A miniature Sora that trains on a laptop, and an exact instrument for what such models cost.\n\n"
    "Three commands from a folder of clips to videos:\n\n"
    "    minisora data check clips/\n\n"
    "    minisora train --data clips/ --out runs/mine\n\n"
    '    minisora sample --model runs/mine/model --prompt "..." --out x.mp4',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make and check data sets.", no_args_is_help=True)
scale_app = typer.Typer(
    help="The scaling ladder: the same model at many sizes and budgets, a law, and Sora's figure in miniature.",
    no_args_is_help=True,
)
caption_app = typer.Typer(help="Fill in missing captions.", no_args_is_help=True)
world_app = typer.Typer(
    help="Worlds that are played: play one, record it, train a model that learns it by looking alone, measure it, plan "
    "in it.",
    no_args_is_help=True,
)
evaluate_app = typer.Typer(
    cls=evaluate.OldForm,
    help="Judge what videos show against their prompts, without a learned network, and the judge itself.",
    no_args_is_help=True,
)

for command in (
    demo.demo,
    train.train,
    train.distill,
    demo.page,
    sample.sample,
    edit.edit,
    edit.augment,
    sample.export,
    studio.studio,
    flops.flops,
    flops.calibrate,
    report.report,
    plan.plan,
):
    app.command()(command)
app.add_typer(evaluate_app, name="evaluate")
evaluate_app.command("prompts")(evaluate.evaluate_prompts)
evaluate_app.command("run")(evaluate.evaluate_run)
evaluate_app.command("videos")(evaluate.evaluate_videos)
evaluate_app.command("steps")(evaluate.evaluate_steps)
evaluate_app.command("sizes")(evaluate.evaluate_sizes)
evaluate_app.command("modes")(evaluate.evaluate_modes)
app.add_typer(data_app, name="data")
data_app.command("make")(data.data_make)
data_app.command("check")(data.data_check)
data_app.command("pack")(data.data_pack)
app.add_typer(scale_app, name="scale")
scale_app.command("run")(scale.scale_run)
scale_app.command("fit")(scale.scale_fit)
scale_app.command("figure")(scale.scale_figure)
app.add_typer(caption_app, name="caption")
caption_app.command("train")(caption.caption_train)
caption_app.command("label")(caption.caption_label)
app.add_typer(world_app, name="world")
world_app.command("record")(worlds.world_record)
world_app.command("play")(worlds.world_play)
world_app.command("train")(worlds.world_train)
world_app.command("name")(worlds.world_name)
world_app.command("evaluate")(worlds.world_evaluate)
world_app.command("export")(worlds.world_export)
world_app.command("plan")(world_plan.world_plan)

_INTERRUPTED = 130  # what Typer makes of Ctrl-C, without a word
# Of the copy of click that Typer brings, or of click itself where Typer is older.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line: bad input becomes one line on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except _UsageError as error:
        # Without arguments a command shows its help, which stands in the place of a message.
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(2)
        _fail(f"{error.format_message().rstrip('.')}; see '{error.ctx.command_path} --help'")
    except typer.Abort:
        code = _INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _fail(out_of_memory(error, "make the batch, the clip or the model smaller, or free memory"))
    except PermissionError as error:
        _fail(f"no permission for {error.filename}: choose another place or change its mode")
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno == errno.ENOMEM:
            _fail(out_of_memory(error, "make the batch, the clip or the model smaller, or free memory"))
        _fail(f"{error.filename or 'a file'}: {error.strerror}")
    if code == _INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _fail(message: str) -> None:
    print(f"error: {plain(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
