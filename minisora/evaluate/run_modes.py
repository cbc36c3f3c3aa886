"""`minisora evaluate --modes`: every mode of a checkpoint on the shapes world.

OUT/modes.json    shares with counts and intervals, and the plain numbers, of each mode
   /modes.png     a video of each mode, of the same prompt; not chosen
"""

from pathlib import Path

from rich.console import Console

from minisora.data.video.write_video import write_contact_sheet
from minisora.errors import UserError
from minisora.evaluate.judge_modes import evaluate_modes
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.trial import ModeScore
from minisora.files import write_json
from minisora.flow.denoise import SampleSettings
from minisora.pipelines.model_folder import load_pipeline
from minisora.screen import Table, say


def run_modes(
    out: Path,
    console: Console,
    *,
    model: Path | None,
    prompts: str = "72",
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 12,
) -> dict[str, ModeScore]:
    """Measure every mode of a model folder, print a table and write `modes.json`.

    Raises:
        UserError: no model, or one that cannot be read.
    """
    if model is None:
        raise UserError("evaluate --modes needs --model DIR")
    pipeline = load_pipeline(model)
    with console.status("modes") as status:
        found = evaluate_modes(
            pipeline,
            prompt_set(prompts),
            seed=seed,
            batch_size=batch_size,
            settings=SampleSettings(steps=steps, guidance=guidance),
            on_mode=lambda name: status.update(f"modes: {name}"),
        )
    console.print(_table(found))
    out.mkdir(parents=True, exist_ok=True)
    settings = {"model": str(model), "prompts": prompts, "seed": seed, "steps": steps, "guidance": guidance}
    modes = {name: score.to_dict() for name, score in found.items()}
    write_json(out / "modes.json", {"settings": settings, "modes": modes})
    captions = [f"{name.replace('_', ' ')}: {score.caption}" for name, score in found.items()]
    write_contact_sheet(
        out / "modes.png", [score.example for score in found.values()], captions, max_frames=13
    )
    say(console, f"wrote {out / 'modes.json'} and modes.png")
    return found


def _table(found: dict[str, ModeScore]) -> Table:
    table = Table(title="modes, each tried once on every prompt", title_justify="left")
    table.add_column("mode")
    table.add_column("what")
    table.add_column("right", justify="right")
    for name, score in found.items():
        shown = name
        for what, rate in score.rates.items():
            table.add_row(shown, what.replace("_", " "), str(rate))
            shown = ""
        for what, value in score.numbers.items():
            table.add_row("", what.replace("_", " "), f"{value:.2f}")
    return table
