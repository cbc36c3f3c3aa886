"""The law of a ladder: results.jsonl in, law.json out.

law.json holds the laws with their intervals, the error on the largest budget when it is held out, what the law says
of Sora's budget with how far that is beyond the data, and the published exponents beside ours.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from minisora.errors import UserError
from minisora.files import write_json
from minisora.scaling.law import (
    Law,
    Parabola,
    bootstrap,
    fit_budget_law,
    fit_loss_law,
    fit_parabola,
    fit_size_law,
)
from minisora.scaling.published import PUBLISHED
from minisora.scaling.results import Row, read_rows

SORA_FLOPS, SORA_PARAMS = 1e25, 20e9  # the report's guess of training compute and size


def fit_ladder(rows: Sequence[Row], tokens_per_clip: int) -> dict[str, Any]:
    """All laws of the isoFLOP runs of a ladder, ready for JSON.

    Args:
        rows: of results.jsonl; other axes are left out of the laws.
        tokens_per_clip: latent tokens, for D.

    Raises:
        UserError: too few budgets or sizes to fit.
    """
    runs = [row for row in rows if row["axis"] == "isoflop"]
    budgets: dict[float, list[int]] = defaultdict(list)
    for place, row in enumerate(runs):
        budgets[row["times"]].append(place)
    order = sorted(budgets)
    if len(order) < 4:
        raise UserError(f"{len(order)} budgets are too few: three to fit and one to hold out at least")
    flops = np.array([row["flops"] for row in runs], float)
    params = np.array([row["params"] for row in runs], float)
    tokens = np.array([row["samples"] * tokens_per_clip for row in runs], float)
    losses = np.array([row["loss"] for row in runs], float)
    groups = [budgets[times] for times in order]

    def best_of(places: Sequence[int], wanted: Sequence[float]) -> tuple[list[float], list[float]]:
        """Budget and least loss, of each wanted budget that has points."""
        found = []
        for times in wanted:
            here = [i for i in places if runs[i]["times"] == times]
            if here:
                found.append(min((losses[i], flops[i]) for i in here))
        return [c for _, c in found], [loss for loss, _ in found]

    everything = range(len(runs))
    budget_law = fit_budget_law(*best_of(everything, order))
    loss_law = fit_loss_law(params, tokens, losses)
    parabolas = [p for times in order if (p := _parabola(budgets[times], flops, params, losses)) is not None]
    inside = [p for p in parabolas if p.inside]
    size_law = (
        fit_size_law([p.flops for p in inside], [p.params for p in inside]) if len(inside) > 1 else None
    )

    budget_intervals = bootstrap(
        lambda places: fit_budget_law(*best_of(places, order), near=budget_law).constants, groups
    )
    # Compute of a run is c N D with c counted: about 6, more with attention and modulation.
    per_pair = float(np.median(flops / (params * tokens)))

    def refitted(places: Sequence[int]) -> dict[str, float]:
        law = fit_loss_law(params[list(places)], tokens[list(places)], losses[list(places)])
        exponent, best = _best_size(law, per_pair)
        return {**law.constants, "exponent": exponent, "params": best}

    loss_intervals = bootstrap(refitted, groups, times=40)
    best_size = {f"{name}_interval": list(loss_intervals.pop(name)) for name in ("exponent", "params")}
    held = _held_out(runs, order, flops, params, tokens, losses, best_of)
    found: dict[str, Any] = {
        "runs": len(runs),
        "budgets": [float(np.median(flops[budgets[times]])) for times in order],
        "budget_law": Law(
            budget_law.formula, budget_law.constants, budget_law.error, budget_intervals
        ).to_dict(),
        "loss_law": Law(loss_law.formula, loss_law.constants, loss_law.error, loss_intervals).to_dict(),
        "parabolas": [vars(p) for p in parabolas],
        "size_law": None if size_law is None else size_law.to_dict(),
        "held_out": held,
        "loss_noise": _noise(runs, losses),
    }
    found["optimal"] = _optimal(loss_law, size_law, float(flops.max()), per_pair, best_size)
    return found


def _parabola(places: Sequence[int], flops: Any, params: Any, losses: Any) -> Parabola | None:
    try:
        return fit_parabola(float(np.median(flops[places])), params[places], losses[places])
    except UserError:
        return None


def _held_out(
    runs: Sequence[Row],
    order: Sequence[float],
    flops: Any,
    params: Any,
    tokens: Any,
    losses: Any,
    best_of: Any,
) -> dict[str, Any]:
    """The laws fitted without the largest budget, and how wrong they are there."""
    kept = [i for i, row in enumerate(runs) if row["times"] != order[-1]]
    (largest,), (truth,) = best_of(range(len(runs)), order[-1:])
    by_budget = float(fit_budget_law(*best_of(kept, order[:-1])).loss(largest))
    law = fit_loss_law(params[kept], tokens[kept], losses[kept])
    gone = [i for i, row in enumerate(runs) if row["times"] == order[-1]]
    by_size = law.loss_of(params[gone], tokens[gone])
    return {
        "flops": largest,
        "loss": truth,
        "predicted": by_budget,
        "error": by_budget / truth - 1,
        "loss_law_errors": (by_size / losses[gone] - 1).tolist(),
    }


def _noise(runs: Sequence[Row], losses: Any) -> float | None:
    """Median relative spread of the loss over seeds of equal runs."""
    equal: dict[tuple[int, float], list[float]] = defaultdict(list)
    for row, loss in zip(runs, losses, strict=True):
        equal[row["dial"], row["times"]].append(float(loss))
    spreads = [float(np.std(same, ddof=1) / np.mean(same)) for same in equal.values() if len(same) > 1]
    return float(np.median(spreads)) if spreads else None


def _best_size(law: Law, per_pair: float) -> tuple[float, float]:
    """Exponent of N* ~ C^a and N* at Sora's budget, where L(N, C / (per_pair N)) is least (Chinchilla, eq. 4)."""
    k = law.constants
    exponent = k["beta"] / (k["alpha"] + k["beta"])
    factor = (k["alpha"] * k["A"] / (k["beta"] * k["B"])) ** (1 / (k["alpha"] + k["beta"]))
    return exponent, factor * (SORA_FLOPS / per_pair) ** exponent


def _optimal(
    law: Law, size_law: Law | None, largest: float, per_pair: float, intervals: dict[str, list[float]]
) -> dict[str, Any]:
    """What the laws say of the best size for Sora's budget, and how far beyond the data that is."""
    exponent, params = _best_size(law, per_pair)
    said: dict[str, Any] = {
        "flops": SORA_FLOPS,
        "reports_params": SORA_PARAMS,
        "decades_beyond_data": math.log10(SORA_FLOPS / largest),
        "flops_per_parameter_and_token": per_pair,
        "loss_law": {
            "exponent": exponent,
            "params": params,
            "over_the_reports_20B": params / SORA_PARAMS,
            **intervals,
        },
        "published": [
            {
                "name": each.name,
                "source": each.source,
                "exponent": each.a,
                "loss_exponent": each.loss_exponent,
                "params": each.k * SORA_FLOPS**each.a,
                "decades_beyond_data": math.log10(SORA_FLOPS / each.fitted[1]) if each.fitted else None,
            }
            for each in PUBLISHED
        ],
    }
    if size_law is not None:
        at = size_law.constants["k"] * SORA_FLOPS ** size_law.constants["a"]
        said["parabolas"] = {
            "exponent": size_law.constants["a"],
            "params": at,
            "over_the_reports_20B": at / SORA_PARAMS,
        }
    return said


def fit_tables(found: dict[str, Any]) -> Group:
    """The laws and what they say, for a terminal."""
    laws = Table(title=f"laws fitted to {found['runs']} runs", title_justify="left")
    for head in ("law", "constant", "value", "90 % interval"):
        laws.add_column(head, justify="left" if head == "law" else "right")
    for name in ("budget_law", "loss_law", "size_law"):
        law = found[name]
        for place, (constant, value) in enumerate((law or {"constants": {}})["constants"].items()):
            low_high = law["intervals"].get(constant)
            shown = f"{low_high[0]:.4g} to {low_high[1]:.4g}" if low_high else "-"
            formula = law["formula"] + ("" if law["determined"] else " (NOT DETERMINED by these runs)")
            laws.add_row(formula if place == 0 else "", constant, f"{value:.4g}", shown)
    held = found["held_out"]
    laws.caption = (
        f"largest budget ({held['flops']:.3g} FLOPs) held out: predicted {held['predicted']:.4f}, "
        f"measured {held['loss']:.4f}, error {held['error']:+.2%}"
    )
    best = found["optimal"]
    sora = Table(
        title=f"best size for {best['flops']:.0e} FLOPs, {best['decades_beyond_data']:.1f} DECADES BEYOND OUR DATA",
        title_justify="left",
    )
    for head in ("law", "N ~ C^", "parameters", "decades beyond its data"):
        sora.add_column(head, justify="left" if head == "law" else "right")
    for name, title in (("loss_law", "ours, L(N, D)"), ("parabolas", "ours, parabolas")):
        if name in best:
            row = best[name]
            beyond = f"{best['decades_beyond_data']:.1f}"
            told = (f"{row['exponent']:.3f}", f"{row['params']:.2g}")
            undetermined = name == "loss_law" and not found["loss_law"]["determined"]
            sora.add_row(title, *(("not determined", "-") if undetermined else told), beyond)
    for row in best["published"]:
        beyond = "-" if row["decades_beyond_data"] is None else f"{row['decades_beyond_data']:.1f}"
        sora.add_row(
            f"{row['name']} ({row['source']})", f"{row['exponent']:.3f}", f"{row['params']:.2g}", beyond
        )
    sora.caption = "the report guesses 20e9"
    return Group(laws, sora)


def fit_file(results: Path, tokens_per_clip: int, out: Path) -> dict[str, Any]:
    """Fit a results file and write law.json.

    Raises:
        UserError: there is no such file, too little in it, or `out` cannot be written.
    """
    rows = read_rows(results)
    if not rows:
        raise UserError(f"no results in {results}: run 'minisora scale run' first")
    found = fit_ladder(rows, tokens_per_clip)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found)
    return found
