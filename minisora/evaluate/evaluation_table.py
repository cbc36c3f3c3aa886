"""An evaluation on a run's own clips as a table for the screen, and the lines below it."""

from typing import Any

from minisora.evaluate.advice import Amounts, OwnVerdict
from minisora.evaluate.clip_sets import mean
from minisora.screen import Table


def verdict_lines(verdict: OwnVerdict) -> list[tuple[str, str]]:
    """What is printed below the table, each with its style: the verdict, advice, and what cannot be told."""
    lines = [(verdict.sentence, "bold")]
    lines += [(f"  advice: {line}", "") for line in verdict.advice]
    return lines + [(f"  not told: {line}", "yellow") for line in verdict.not_told]


def evaluation_table(
    points: dict[str, Any], copies: dict[str, Amounts], samples: dict[str, Amounts]
) -> Table:
    """Measures down, sets of clips across; what cannot be told is a dash."""
    vae, moved, captions = points["vae"], points["motion"]["distance"], points["captions"]
    clips = f"{vae['clips']} held-out clip" + ("s" if vae["clips"] > 1 else "")
    title = f"{points['settings']['run']}: {clips}, {points['samples']['count']} samples"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for head in ("held out", "VAE copies", "samples", "real against\nreal"):
        table.add_column(head, justify="right")

    def row(name: str, *cells: float | None, form: str = ".1%") -> None:
        texts = ["-" if cell is None else "" if cell == "" else format(cell, form) for cell in cells]
        table.add_row(name, *texts, *[""] * (4 - len(texts)))

    blank: Any = ""
    row("PSNR, dB", blank, vae["psnr"], form=".1f")
    row("PSNR of what moves, dB", blank, vae["psnr_moving"], form=".1f")
    row("  the still picture's", blank, vae["psnr_moving_still"], form=".1f")
    row("SSIM" if vae["ssim"] is not None else "SSIM (needs torchmetrics)", blank, vae["ssim"], form=".3f")
    row("flicker", vae["flicker"]["real"], vae["flicker"]["copies"], form=".2%")
    for caption, amounts in copies.items():
        made = mean(samples[caption].seen) if caption in samples else None
        name = f"  {caption}" if caption else "pixels that change"
        row(name, mean(amounts.real), mean(amounts.seen), made, form=".2%")
    if captions:
        row("captions followed", captions["real"], captions["copies"], captions["samples"], form=".0%")
        row("  by chance", blank, blank, captions["chance"], form=".0%")
    for name, form in (("amount", ".2%"), ("speed", ".2f"), ("direction", ".3f")) if moved else ():
        unit = {"amount": "", "speed": ", pixels a frame", "direction": ", turns"}[name]
        row(
            f"distance of {name}{unit}", blank, blank, moved[name]["samples"], moved[name]["floor"], form=form
        )
    for name, each in (points["frechet"] or {}).items():
        row(f"Frechet distance, {name}", blank, each["copies"], each["samples"], each["floor"], form=".2f")
        row("  of still pictures", blank, blank, each["still"], form=".2f")
    loss = points["memorisation"]["loss_by_sigma"]["ratio"]
    row("loss against knowing the mean only", blank, blank, loss, form=".2f")
    near = points["memorisation"]["finding"]
    row("copies of training clips", near["unseen_copies"], blank, near["copies"], form=".0%")
    return table
