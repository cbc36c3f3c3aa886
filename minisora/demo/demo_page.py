"""The demo's page: one self-contained HTML file with its videos and plots inside."""

import base64
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

from minisora.config import Config
from minisora.files import write_whole

matplotlib.use("agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class PageData:
    """Everything the page shows."""

    config: Config
    seconds: dict[str, float]  # of the two training stages
    metrics: list[dict[str, Any]]
    vae: dict[str, Any]
    score: dict[str, Any]  # of the 72 triples
    kinds: dict[str, Any]  # scores of the prompts with a wall, and with a light
    judge: dict[str, Any]  # the judge's own, on rendered clips and on their reconstructions
    report: str  # the compute report, relative to the page
    samples: list[tuple[dict[str, Any], Path]]  # prompt and verdict, mp4
    pairs: list[Path]  # mp4, original left, reconstruction right
    flops: dict[str, Any]
    machine: str
    day: str


def write_page(path: Path, data: PageData) -> Path:
    """Write the page, atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"giga": lambda n: f"{n / 1e9:,.3f}", "percent": lambda x: f"{x:.0%}"}
    html = environment.get_template("page.html").render(
        data=data,
        samples=[(sample, _embed(file)) for sample, file in data.samples],
        pairs=[_embed(file) for file in data.pairs],
        vae_curve=_curve(data.metrics, "vae", "psnr", "PSNR of training crops (dB)", "val_psnr"),
        dit_curve=_curve(data.metrics, "dit", "loss", "velocity loss", "val_loss"),
    )
    write_whole(path, html)
    return path


def _embed(file: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()


def _curve(metrics: list[dict[str, Any]], stage: str, name: str, label: str, validation: str) -> str:
    """An inline SVG of a training number and its validation against steps."""
    rows = [record for record in metrics if record["stage"] == stage]
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(4.8, 2.6), layout="constrained")
        points = [(r["step"], r[name]) for r in rows if name in r]
        axes.plot(
            *zip(*points, strict=True), color="#9ecae1", linewidth=0.8, label="training"
        ) if points else None
        points = [(r["step"], r[validation]) for r in rows if validation in r]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color="#08519c",
                marker="o",
                markersize=3,
                label="validation, averaged weights",
            )
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", transparent=False, metadata={"Date": None})
        plt.close(figure)
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
