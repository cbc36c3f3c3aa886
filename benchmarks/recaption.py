"""What machine captions are worth: a DiT on a tenth of the labels, on these and a captioner's, and on all labels.

    python benchmarks/recaption.py --run runs/demo --json benchmarks/results/recaption_MACHINE_DATE.json  # 25 minutes
    python benchmarks/recaption.py --run runs/demo --quick

The recipe of DALL-E 3 (Betker et al. 2023): a captioner learns from the labelled clips and labels the rest. RUN needs
a trained VAE; latents that it has of its clips are used. A clip without a label is trained on the empty caption.

captioner    share of unseen clips whose caption names the same colour, shape, motion, size, light and wall
DiT          share of the 72 prompts judged right in colour, shape and motion; the same steps for all three
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interleave import facts, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from minisora.config import load
from minisora.data.batches import LatentSource
from minisora.data.dataset import open_dataset
from minisora.data.shapes_world.grammar import parse
from minisora.errors import UserError
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import evaluate_pipeline
from minisora.models.captioner import VideoCaptioner
from minisora.pipelines.model_folder import load_pipeline
from minisora.training.captioning import train_captioner, write_captions
from minisora.training.latents import build_latents
from minisora.training.stages import load_vae, train_dit_on

LABELLED = 0.1
FIELDS = ("color", "shape", "motion", "size", "light", "wall")


class Relabelled:
    """A `LatentSource` with other captions."""

    def __init__(self, source: LatentSource, captions: list[str]):
        self.source, self._captions = source, captions

    def __len__(self) -> int:
        return len(self.source)

    def latents(self, indices: Sequence[int]) -> Tensor:
        return self.source.latents(indices)

    def captions(self) -> list[str]:
        return self._captions


def same(written: str, true: str) -> dict[str, bool]:
    """Which fields two captions agree in; none where what was written is no caption."""
    try:
        a = parse(written)
    except UserError:
        return dict.fromkeys(FIELDS, False)
    b = parse(true)
    return {field: getattr(a, field) == getattr(b, field) for field in FIELDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run of the shapes world with a VAE")
    parser.add_argument("--steps", type=int, default=1600, help="of each DiT (default 1600)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="of the DiTs' config",
    )
    parser.add_argument("--samples", type=int, default=2, help="videos of each of the 72 prompts (default 2)")
    parser.add_argument("--captioner-only", action="store_true", help="no DiT: about 5 minutes")
    parser.add_argument("--quick", action="store_true", help="20 steps of each: only that it runs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there, atomically")
    arguments = parser.parse_args()
    result, quiet, run = facts(), Console(quiet=True), arguments.run
    steps = 20 if arguments.quick else arguments.steps
    changes = {f"train_dit.{key}": steps for key in ("steps", "validate_every", "save_every")}
    # More unseen clips than the run validates on: 64 tell a share to 5 points only.
    changes |= {"train_dit.sample_every": 0, "data.num_validation_clips": 16 if arguments.quick else 512}
    if arguments.quick:
        changes["train_caption.steps"] = 20
    config = load(run / "config.yaml", arguments.overrides, changes)
    scratch = Path(tempfile.mkdtemp(prefix="recaption-"))
    shutil.copytree(run / "vae" / "model", scratch / "vae" / "model")
    (scratch / "cache").mkdir()
    for coded in (run / "cache").glob("*"):
        (scratch / "cache" / coded.name).symlink_to(coded.resolve())
    run = scratch
    train_captioner(config, run, quiet, LABELLED)
    captioner = VideoCaptioner.from_pretrained(run / "captioner" / "model")
    vae = load_vae(run / "vae" / "model")
    train, unseen = (
        build_latents(config, vae, open_dataset(config, split), run / "cache", quiet, split)
        for split in ("train", "validation")
    )
    labels = train.captions()
    first = round(LABELLED * len(labels))
    written = [caption.text for caption in write_captions(captioner, train)]
    judged = {}
    for name, texts, truths in (
        ("unseen clips", [c.text for c in write_captions(captioner, unseen)], unseen.captions()),
        ("unlabelled clips", written[first:], labels[first:]),
    ):
        matches = [same(a, b) for a, b in zip(texts, truths, strict=True)]
        judged[name] = {field: sum(row[field] for row in matches) / len(matches) for field in FIELDS}
        judged[name]["all"] = sum(all(row.values()) for row in matches) / len(matches)
        judged[name]["clips"] = len(matches)
    sets = {
        "10 % of the labels": labels[:first] + [""] * (len(labels) - first),
        "10 % and the captioner's": labels[:first] + written[first:],
        "100 % of the labels": labels,
    }
    rows = []
    for name, captions in {} if arguments.captioner_only else sets.items():
        out = run / "recaption"
        shutil.rmtree(out, ignore_errors=True)
        train_dit_on(config, vae, Relabelled(train, captions), unseen, out, quiet)
        pipeline = load_pipeline(out / "model")
        score = evaluate_pipeline(pipeline, prompt_set("72") * arguments.samples, 0, 24)[2]
        rows.append({"labels": name, "steps": steps, **score.to_dict()})
    shutil.rmtree(scratch)

    console = Console(width=110)
    table = Table(title=f"a captioner trained on {first} labelled clips", title_justify="left")
    table.add_column("captions of")
    for field in (*FIELDS, "all"):
        table.add_column(field, justify="right")
    for name, shares in judged.items():
        table.add_row(name, *(f"{shares[field]:.1%}" for field in (*FIELDS, "all")))
    console.print(table)
    if rows:
        console.print(_dit_table(rows, steps, arguments.samples))
    if arguments.json:
        write(
            arguments.json,
            {
                **result,
                "settings": {
                    "run": str(arguments.run),
                    "steps": steps,
                    "samples": arguments.samples,
                    "set": arguments.overrides,
                },
                "labelled": first,
                "captioner": judged,
                "dit": rows,
            },
        )


def _dit_table(rows: list[dict[str, Any]], steps: int, samples: int) -> Table:
    table = Table(title=f"DiT, {steps} steps, {samples} videos of each of 72 prompts", title_justify="left")
    for head in ("labels", "colour", "shape", "motion", "all right"):
        table.add_column(head)
    for row in rows:
        shown = (f"{row[key]['share']:.1%}" for key in ("color", "shape", "motion", "all_right"))
        table.add_row(row["labels"], *shown)
    return table


if __name__ == "__main__":
    main()
