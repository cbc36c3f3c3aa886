"""A stage from its beginning to the model that comes out: newest checkpoint, precision, the loop, the folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator
from rich.console import Console
from safetensors import SafetensorError
from torch import Tensor

from minisora.config import Config, TrainConfig
from minisora.errors import UserError
from minisora.files import SavesItself, replace_folder, settle_folder
from minisora.models.precision import choose_precision
from minisora.screen import say
from minisora.training import checkpoint
from minisora.training.launch import (
    device_name,
    end_stage,
    make_accelerator,
    process_device,
)
from minisora.training.loop import StageResult, Trainer
from minisora.training.tasks import Task

TaskType = TypeVar("TaskType", bound=Task)


def run_stage(
    config: Config,
    settings: TrainConfig,
    out: Path,
    console: Console,
    *,
    title: str,
    width: int,
    inputs: str,
    begin: Callable[[], None],
    make_task: Callable[[Accelerator], TaskType],
    model: Path,
    finish: Callable[[TaskType, dict[str, Tensor]], SavesItself | None],
    on_sample: Callable[[TaskType, int, dict[str, Tensor]], None] | None = None,
    on_validate: Callable[[TaskType, int, dict[str, Tensor]], None] | None = None,
    steps_by: Callable[[int], int] | None = None,
) -> StageResult:
    """Train a task to its last step, from its newest checkpoint if there is one, and write the model that comes out.

    Nothing is written before it is known that the stage may go on where it stands.

    Args:
        config: the whole run's, written into checkpoints.
        settings: the stage's section of it.
        out: the stage's folder, RUN/NAME; checkpoints/ goes below it, metrics.jsonl beside it.
        console: where progress is shown.
        title: of the stage, for people.
        width: of the model, by which the precision is chosen.
        inputs: fingerprint of the data (and of the VAE or the teacher) that the stage is given.
        begin: writes down what the stage is begun on; called on the main process.
        make_task: the task, on the stage's device.
        model: the folder of the model.
        finish: the model from the task and the averaged weights, called on the main process; None: it is written.
        on_sample: called on the main process with the task, the step and the averaged weights.
        on_validate: the same, after each validation.
        steps_by: as of `Trainer`; None: the settings' steps stand.

    Raises:
        UserError: the checkpoint is of another run, the config cannot be trained, or a place cannot be written.
    """
    last = checkpoint.resume_point(out / "checkpoints", checkpoint.described(config), inputs)
    device = process_device()
    # Going on in another precision would change the losses.
    precision, reason = (
        choose_precision(settings.precision, device, width)
        if last is None
        else (last[1].precision, "as in the checkpoint")
    )
    accelerator = make_accelerator(
        precision=precision,
        accumulation=settings.accumulation,
        trackers=settings.trackers,
        out=out,
        seed=config.seed,
    )
    if accelerator.is_main_process:
        say(console, (title, "bold"), f" on {device_name(device)}, {precision} ({reason})")
        try:
            begin()
        except OSError as error:
            raise UserError(f"cannot write to {out.parent}: {error.strerror}; use another --out") from error
    task = make_task(accelerator)
    sampled, validated = (None if call is None else partial(call, task) for call in (on_sample, on_validate))
    trainer = Trainer(task, config, accelerator, out, inputs, console, last, sampled, validated, steps_by)
    result = trainer.fit()
    if accelerator.is_main_process:
        settle_folder(model)
        if (finished := finish(task, result.weights)) is not None:
            try:
                replace_folder(model, finished.save_pretrained)
            except (OSError, SafetensorError) as error:
                why = getattr(error, "strerror", None) or error
                raise UserError(f"cannot write {model}: {why}; free space or use another --out") from error
    end_stage(accelerator)
    return result
