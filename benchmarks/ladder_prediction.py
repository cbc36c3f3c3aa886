"""What the scaling ladder will take on a card that nobody here has: predicted before it is run, to be held against it.

    python benchmarks/ladder_prediction.py --json benchmarks/results/ladder-prediction_meta_DATE.json
    python benchmarks/ladder_prediction.py --check runs/ladder-h100/results.jsonl

A step of training takes the longer of two times:

    work        counted FLOPs, stretched by what memory moves, / (the card's peak x the share that trainings reach)
    launches    operators that a step dispatches x the time that one takes to be dispatched

Small models on a large card wait for the second, which `train_dit.compile` shortens by an unknown factor: it is in the
interval. Seconds are those of the runs' own training; compiling, latents and judging come on top.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from interleave import write
from torch.utils._python_dispatch import TorchDispatchMode

from minisora.errors import UserError
from minisora.flops.device import built_on
from minisora.flops.passes import dit_pass
from minisora.models.build import build_dit, latent_grid
from minisora.plan.held_out import Evidence, evidence
from minisora.plan.question import ask, card_named
from minisora.plan.spending import spend
from minisora.plan.subject import of_config
from minisora.scaling.ladder import LadderConfig, Run, plan, read_ladder, shared_config

# Seconds of an operator from Python to the card, least, middle and most: assumed. Compiled steps dispatch a fraction.
LAUNCH = (1e-6, 5e-6, 1.2e-5)


class Operators(TorchDispatchMode):
    """Counts what is dispatched and computes something: no views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (hasattr(function, "is_view") and function.is_view)
        return function(*args, **(kwargs or {}))


def operators(ladder: LadderConfig, run: Run) -> int:
    """That a forward and a backward pass of a run's DiT dispatch; one step of the optimizer is two a parameter."""
    config = run.config(shared_config(ladder))
    with built_on("meta"):
        dit = build_dit(config, config.text.width)
        part = dit_pass(config, dit, latent_grid(config), text_width=config.text.width, batch=run.batch)
    with Operators() as seen:
        part.loss().backward()
    return seen.count + 2 * sum(1 for _ in dit.parameters())


def predict(ladder: LadderConfig, card: str, known: Evidence) -> list[dict[str, Any]]:
    """A row a run: its two times, and seconds with 5 to 95 %."""
    asked, share = card_named(card), known.train
    spread = known.interval("training")
    if spread is None:
        raise UserError("too few developers disclosed a training: there is no interval")
    seen: dict[int, int] = {}
    stretched: dict[int, float] = {}
    rows = []
    for run in plan(ladder):
        if run.dial not in seen:
            seen[run.dial] = operators(ladder, run)
            question = ask(of_config(run.config(shared_config(ladder)), run.name), card=asked, train=True)
            stretched[run.dial] = float(spend(question.subject, question.inputs(1.0, 1.0, 0.0))["stretch"])
        work = run.flops * stretched[run.dial] / (asked.peak("bfloat16") * share)
        launches = [run.steps * seen[run.dial] * each for each in LAUNCH]
        rows.append(
            {
                "name": run.name,
                "params": run.params,
                "batch": run.batch,
                "steps": run.steps,
                "flops": run.flops,
                "operators_of_a_step": seen[run.dial],
                "stretch": stretched[run.dial],
                "work_seconds": work,
                "launch_seconds": launches[1],
                "seconds": max(work, launches[1]),
                "low": max(work * spread[0], launches[0]),
                "high": max(work * spread[1], launches[2]),
            }
        )
    return rows


def check(rows: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Measured over predicted, run by run, and how many lie in their interval."""
    told = {row["name"]: row for row in rows}
    runs = [
        {
            "name": each["name"],
            "measured": each["seconds"],
            "predicted": told[each["name"]]["seconds"],
            "over": each["seconds"] / told[each["name"]]["seconds"],
            "inside": told[each["name"]]["low"] <= each["seconds"] <= told[each["name"]]["high"],
        }
        for each in results
        if each["name"] in told and each["seconds"]
    ]
    logs = [math.log(run["over"]) for run in runs]
    return {
        "runs": runs,
        "inside": sum(run["inside"] for run in runs),
        "of": len(runs),
        "geometric_mean_of_over": math.exp(sum(logs) / len(logs)) if logs else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ladder", default="h100")
    parser.add_argument("--card", default="H100 SXM")
    parser.add_argument(
        "--check", type=Path, help="results.jsonl of the ladder, to hold the prediction against"
    )
    parser.add_argument("--json", type=Path, help="write the numbers there")
    arguments = parser.parse_args()
    rows = predict(read_ladder(arguments.ladder), arguments.card, evidence())
    total = {key: sum(row[key] for row in rows) for key in ("flops", "seconds", "low", "high")}
    tree: dict[str, Any] = {
        "ladder": arguments.ladder,
        "card": arguments.card,
        "torch": torch.__version__,
        "launch_seconds_of_an_operator": LAUNCH,
        "total": total,
        "runs": rows,
    }
    for row in rows:
        print(
            f"{row['name']:14} {row['steps']:>8,} steps {row['seconds'] / 60:8.1f} min "
            f"({row['low'] / 60:.1f} to {row['high'] / 60:.1f}), work {row['work_seconds'] / 60:.1f}"
        )
    hours = [total[key] / 3600 for key in ("seconds", "low", "high")]
    print(
        f"{len(rows)} runs, {total['flops']:.3g} FLOPs: {hours[0]:.2f} h ({hours[1]:.2f} to {hours[2]:.2f})"
    )
    if arguments.check:
        tree["check"] = check(rows, [json.loads(line) for line in arguments.check.read_text().splitlines()])
        print(f"{tree['check']['inside']} of {tree['check']['of']} runs inside")
    if arguments.json:
        write(arguments.json, tree)


if __name__ == "__main__":
    main()
