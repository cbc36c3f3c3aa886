"""Scores as tables for a terminal: each share with its interval, and the judge's own accuracy beside it.

"Renders" are the same prompts as the world draws them, "VAE copies" the renders after the model's own VAE: a
share of a model is worth no more than the judge's on its VAE copies.
"""

from collections.abc import Mapping

from rich import box

from minisora.evaluate.prompts import Kind
from minisora.evaluate.score import Rate, Score
from minisora.screen import Table

_RATES = {
    "color": "colour",
    "shape": "shape",
    "motion": "motion",
    "all_right": "all three",
    "size": "size",
    "day": "day",
    "night": "night",
    "wall": "wall or none",
    "permanence": "permanence",
}
_KINDS: dict[Kind, str] = {"plain": "plain prompts", "wall": "with a wall", "light": "light said"}
_QUALITY = {  # name, unit or meaning, number of decimals
    "path_error": ("off a straight line, pixels", 2),
    "speed_error": ("off constant speed, share of the path", 3),
    "reappearance_error": ("off the right place behind the wall, pixels", 2),
    "size_variation": ("change of size, share of the area", 3),
    "flicker": ("flicker of the background, of black to white", 4),
    "leftovers": ("frames with a second blob, share (mean)", 3),
    "presence": ("frames with the object, share (mean)", 3),
}


def score_table(
    score: Score, rendered: Score, reconstructed: Score | None, kinds: Mapping[Kind, Score]
) -> Table:
    """Rights of each attribute, all and seen and held-out triples apart; at the end the kinds of prompts."""
    table = Table(
        title="Judged right, 95 % interval below",
        title_justify="left",
        padding=(0, 1, 0, 0),
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    for name in ("all", "seen\ntriples", "held-out\ntriples"):
        table.add_column(name, justify="right")
    table.add_column("judge on\nrenders", justify="right")
    table.add_column("judge on\nVAE copies", justify="right")
    for name, label in _RATES.items():
        parts = (score, score.seen, score.held_out)
        checks = (rendered, reconstructed)
        if not getattr(score, name).total:
            continue
        table.add_row(
            label,
            *[_cell(getattr(part, name)) if part else "" for part in parts],
            *[_short(getattr(part, name)) if part else "" for part in checks],
        )
    if len(kinds) > 1:
        table.add_section()
        for kind, part in kinds.items():
            thirds = (part.all_right, *[p.all_right if p else None for p in (part.seen, part.held_out)])
            table.add_row(f"all three,\n{_KINDS[kind]}", *[_cell(rate) if rate else "" for rate in thirds])
    return table


def quality_table(score: Score, rendered: Score, reconstructed: Score | None) -> Table:
    """Medians of what has no right or wrong, beside what the judge measures where the truth is perfect."""
    table = Table(title="Measured (medians)", title_justify="left", padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("clips", "renders", "VAE copies"):
        table.add_column(name, justify="right")
    for name, (label, decimals) in _QUALITY.items():
        if name not in score.quality:
            continue
        values = [part.quality.get(name) if part else None for part in (score, rendered, reconstructed)]
        table.add_row(label, *["" if value is None else f"{value:.{decimals}f}" for value in values])
    return table


def _cell(rate: Rate) -> str:
    if not rate.total:
        return "-"
    low, high = rate.interval
    return f"{rate.right}/{rate.total} {rate.share:.1%}\n{100 * low:.0f} to {100 * high:.0f} %"


def _short(rate: Rate) -> str:
    return f"{rate.share:.1%}" if rate.total else "-"
