"""What `minisora scale fit` prints of law.json."""

from typing import Any

from rich.console import Group

from minisora.screen import Table


def fit_tables(found: dict[str, Any]) -> Group:
    """The laws and what they say, for a terminal."""
    laws = Table(title=f"laws fitted to {found['runs']} runs", title_justify="left")
    for head in ("law", "constant", "value", "90 % interval"):
        laws.add_column(head, justify="left" if head == "law" else "right")
    for name in ("budget_law", "loss_law", "size_law"):
        law = found[name]
        for place, (constant, value) in enumerate((law or {"constants": {}})["constants"].items()):
            low, high = law["intervals"][constant]
            formula = law["formula"] + ("" if law["determined"] else " (NOT DETERMINED by these runs)")
            laws.add_row(formula if place == 0 else "", constant, f"{value:.4g}", f"{low:.4g} to {high:.4g}")
    held, edges = found["held_out"], [o for o in found["optima"] if not o["inside"]]
    worst = max(map(abs, held["loss_law_errors"]))
    laws.caption = (
        f"largest budget ({held['flops']:.3g} FLOPs) held out: L(C) of {held['budgets_fitted']} budgets predicts "
        f"{held['predicted']:.4f}, measured {held['loss']:.4f}, error {held['error']:+.2%}; L(N, D) is at most "
        f"{worst:.2%} off there. Noise of a loss {found['noise']['relative']:.2%} ({found['noise']['from']})"
    )
    optima = Table(title="the best size of each budget", title_justify="left")
    for head in ("FLOPs", "parameters", "loss", ""):
        optima.add_column(head, justify="left" if not head else "right")
    for row in found["optima"]:
        note = "" if row["inside"] else "AT THE EDGE of the sizes tried: the true one lies beyond"
        optima.add_row(f"{row['flops']:.2e}", f"{row['params']:.3g}", f"{row['loss']:.4f}", note)
    if edges and found["size_law"] is None:
        inside = len(found["optima"]) - len(edges)
        optima.caption = f"only {inside} of {len(found['optima'])} inside: no law of the best size"
    best = found["optimal"]
    sora = Table(
        title=f"best size for the report's training, {max(best['decades_beyond_data']):.1f} DECADES BEYOND OUR DATA",
        title_justify="left",
    )
    budgets = [f"at {flops:.3g} FLOPs" for flops in best["flops"]]
    for head in ("law", "N ~ C^", *budgets, "loss ~ C^", "decades beyond its data"):
        sora.add_column(head, justify="left" if head == "law" else "right")
    alpha = found["budget_law"]
    ours = f"-{alpha['constants']['alpha']:.3f}" if alpha["determined"] else "not determined"
    for name, title in (("loss_law", "ours, L(N, D)"), ("parabolas", "ours, parabolas")):
        if name in best:
            row = best[name]
            told = [f"{row['exponent']:.3f}", *(f"{params:.2g}" for params in row["params"])]
            nothing = ["not determined", *("-" for _ in budgets)]
            beyond = _ends(best["decades_beyond_data"])
            sora.add_row(title, *(told if row["determined"] else nothing), ours, beyond)
    for row in best["published"]:
        falls = "-" if row["loss_exponent"] is None else f"-{row['loss_exponent']:.3f}"
        sora.add_row(
            f"{row['name']} ({row['source']})",
            f"{row['exponent']:.3f}",
            *(f"{params:.2g}" for params in row["params"]),
            falls,
            _ends(row["decades_beyond_data"]),
        )
    sora.caption = (
        "the report guesses 2e10; its 1.08e25 to 2.7e25 'FLOPS' are MACs, so 2.6e25 to 6.5e25 FLOPs"
    )
    return Group(laws, optima, sora)


def _ends(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
