"""`minisora report`: everything that is known of one preset, on disk.

DIR/report.html    the page, self-contained and interactive
   /report.json    claims, results with intervals, back-test
   /report.csv     claims and results in rows
   /figures/       SVG and PNG
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from minisora.errors import UserError
from minisora.files import write_whole
from minisora.flops.calibration import read_calibration
from minisora.flops.machines import Machine, known_machines, machine_of, machine_table
from minisora.report import measured_inputs
from minisora.report.assumptions import Assumptions, load_preset, shipped
from minisora.report.backtest import backtest, implication
from minisora.report.claims import CLAIMS, ClaimFinding, audit
from minisora.report.figures.write_figures import FigureContext, draw_figures, save, svg_text
from minisora.report.ladder_law import LadderAnswer, read_law
from minisora.report.page import ReportPage, render_page
from minisora.report.sensitivity import (
    MAIN_RESULT,
    Influence,
    Interval,
    MonteCarlo,
    influences,
    monte_carlo,
)
from minisora.report.video_models import load_models
from minisora.report.words import claim_words, decades_words, error_words, human, result_words, unit_words
from minisora.screen import Table


@dataclass(frozen=True)
class Report:
    """A preset evaluated.

    Args:
        assumptions: with everything applied that was asked for.
        findings: the audit by claim.
        run: the Monte Carlo run.
        influences: what moves `MAIN_RESULT`.
        backtest, implication: one row a disclosed model, and what they imply.
        evidence: what a calibration says of Sora's pass; None without one.
        decades: that each extrapolated result lies beyond the largest measured pass, by name.
        machines: the calibration used, those named beside it (`num_named` in all), and what is shipped.
        law: what a scaling ladder says of Sora's size; None without one.
    """

    assumptions: Assumptions
    findings: dict[str, ClaimFinding]
    run: MonteCarlo
    influences: list[Influence]
    backtest: list[dict[str, Any]]
    implication: dict[str, Any]
    evidence: dict[str, Any] | None
    decades: dict[str, float]
    machines: list[Machine]
    num_named: int
    law: LadderAnswer | None

    def to_dict(self) -> dict[str, Any]:
        """`report.json`."""
        return {
            "preset": self.assumptions.preset,
            "title": self.assumptions.title,
            "date": date.today().isoformat(),
            "claims": {name: finding.to_dict() for name, finding in self.findings.items()},
            "results": {
                name: {
                    "value": float(quantity.value),
                    "unit": quantity.unit,
                    "interval": self.run.intervals[name],
                    "decades_beyond": self.decades.get(name),
                }
                for name, quantity in self.assumptions.results.items()
            },
            "backtest": self.backtest,
            "backtest_implies": self.implication,
            "influences": [
                {**vars(influence), "result": MAIN_RESULT, "swing": influence.swing}
                for influence in self.influences
            ],
            "measured_here": self.evidence,
            "machines": [machine.to_dict() for machine in self.machines],
            "ladder_law": None if self.law is None else self.law.to_dict(),
            "assumptions": {
                name: entry.model_dump(mode="json") for name, entry in self.assumptions.entries.items()
            },
        }


def build_report(
    preset: str = "measured",
    *,
    overrides: list[str] | None = None,
    calibration: Path | None = None,
    beside: Sequence[Path] = (),
    run: Path | None = None,
    law: Path | None = None,
    include_unverified: bool = True,
) -> Report:
    """Evaluate a preset.

    Args:
        preset: a shipped one by name, or a YAML file.
        overrides: `NAME=VALUE`, stronger than anything else.
        calibration: file of `minisora calibrate`: its costs replace arithmetic in the measured column, and in
            the preset itself unless that is the published or the corrected one, which stay what they are.
        beside: calibrations of other machines, shown beside it.
        run: folder of a toy run, for the compression of its VAE.
        law: law.json of a scaling ladder, for the size that its laws find best; it changes no assumption.
        include_unverified: back-test also against models whose figures are second-hand.

    Raises:
        UserError: an input cannot be used.
    """
    assumptions = load_preset(preset)
    measured, extrapolated = None, None
    read = None if calibration is None else read_calibration(calibration)
    machines = [machine_of(each) for each in (read, *map(read_calibration, beside)) if each is not None]
    if read is not None:
        measured = measured_inputs.apply_calibration(shipped("measured"), read)
        extrapolated = measured_inputs.sora_from_points(read, measured.inputs())
        if assumptions.preset == "measured":
            assumptions = measured
        elif assumptions.preset not in ("as_published", "corrected"):
            assumptions = measured_inputs.apply_calibration(assumptions, read)
    if run is not None:
        assumptions = measured_inputs.apply_run(assumptions, run)
    assumptions = assumptions.set_by_user(overrides or [])

    drawn = monte_carlo(assumptions)
    claimed, decades = (
        {} if read is None or each is None else measured_inputs.decades_beyond(each, read)
        for each in (measured, assumptions)
    )
    findings = audit(measured, _measured_intervals(assumptions, drawn, measured), claimed)
    strongest = (
        influences(assumptions, MAIN_RESULT, drawn.draws, drawn.results[MAIN_RESULT].value)
        if drawn.intervals[MAIN_RESULT]
        else []
    )
    rows = backtest(load_models(), include_unverified=include_unverified)
    return Report(
        assumptions,
        findings,
        drawn,
        strongest,
        [row.to_dict() for row in rows],
        implication(rows),
        extrapolated,
        decades,
        machines + [each for each in known_machines() if each.key not in {named.key for named in machines}],
        len(machines),
        None if law is None else read_law(law),
    )


def _measured_intervals(
    assumptions: Assumptions, drawn: MonteCarlo, measured: Assumptions | None
) -> dict[str, Interval | None] | None:
    """Intervals of the measured preset, where it was measured or is the one reported; drawn once if it is the same."""
    if measured is None and assumptions.preset != "measured":
        return None
    reference = measured or shipped("measured")
    return (drawn if reference.entries == assumptions.entries else monte_carlo(reference)).intervals


def write_report(report: Report, out: Path) -> Path:
    """Write page, JSON, CSV and figures into a folder, each file whole or not at all.

    Returns:
        The page.

    Raises:
        UserError: the folder cannot be written.
    """
    context = FigureContext(
        assumptions=report.assumptions,
        monte_carlo=report.run,
        influences=report.influences,
        backtest=report.backtest,
    )
    tree = report.to_dict()
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        figures = draw_figures(context)
        for name, drawn in figures.items():
            save(drawn.figure, out / "figures", name)
        page = render_page(
            ReportPage(
                report=tree,
                figures=[(f.title, f.caption, svg_text(f.figure)) for f in figures.values()],
                assumptions=report.assumptions,
                day=tree["date"],
            )
        )
        write_whole(out / "report.json", json.dumps(tree, indent=1) + "\n")
        write_whole(out / "report.csv", to_csv(tree))
        write_whole(out / "report.html", page)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}; use another --out") from error
    return out / "report.html"


def to_csv(tree: dict[str, Any]) -> str:
    """Claims and results in one table: kind, name, unit, and every number there is."""
    text = io.StringIO()
    columns = ("published", "recomputed", "follows", "corrected", "measured")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("kind", "name", "unit", "value", *columns, "p5", "p50", "p95", "note", "decades_beyond"))
    for name, claim in tree["claims"].items():
        interval = claim["interval"] or ("", "", "")
        writer.writerow(
            ("claim", name, claim["unit"], "", *(claim[c] for c in columns), *interval, claim["note"],
             claim["decades_beyond"])
        )  # fmt: skip
    for name, result in tree["results"].items():
        interval = result["interval"] or ("", "", "")
        row = ("result", name, result["unit"], result["value"], *[""] * 5, *interval, "")
        writer.writerow((*row, result["decades_beyond"]))
    return text.getvalue()


def print_report(report: Report, console: Console) -> None:
    """The audit, the results, and what was measured here, for the screen."""
    audited = Table(title="claims", title_justify="left")
    audited.caption = "compute: MACs as published and recomputed, FLOPs (two a MAC) as corrected and measured"
    columns = ("claim", "published", "recomputed", "follows", "corrected", "measured")
    # How far the measured values lie beyond what was measured; nothing is where nothing was.
    extrapolated = [] if report.evidence is None else ["decades out"]
    if extrapolated:
        audited.caption += (
            "; decades out: powers of ten from the largest pass measured to the one behind a number"
        )
    for column in (*columns, *extrapolated):
        audited.add_column(column, justify="left" if column == "claim" else "right", overflow="fold")
    reasons = Table.grid(padding=(0, 1))
    for name, claim in CLAIMS.items():
        finding = report.findings[name]
        # The report's own guesses: nothing to audit.
        if claim.is_input:
            continue
        follows = Text("yes", "green") if finding.follows else Text("no", "red")
        numbers = (human(finding.published), human(finding.recomputed))
        audited.add_row(
            claim_words(name), *numbers, follows, human(finding.corrected), human(finding.measured),
            *([_decades(finding.decades_beyond)] if extrapolated else []),
        )  # fmt: skip
        if not finding.follows:
            reasons.add_row(Text(claim_words(name), "red"), finding.note)
    results = Table(title=f"{report.assumptions.preset}: {report.assumptions.title}", title_justify="left")
    further = ["decades out"] if report.decades else []
    for column in ("result", "value", "5 to 95 %", *further):
        results.add_column(column, justify="left" if column == "result" else "right", overflow="fold")
    if report.assumptions.entries["count.flops_per_mac"].value == 1:
        results.caption = "a multiply-accumulate counts as one FLOP here, as in the report"
    values = report.assumptions.results
    # The others are in report.json and on the page.
    for name, row in result_words().items():
        if not row.headline:
            continue
        quantity, interval, unit = values[name], report.run.intervals[name], values[name].unit
        ends = "" if interval is None else f"{human(interval[0], unit, 3)} to {human(interval[2], unit, 3)}"
        value = f"{human(float(quantity.value), unit)} {unit_words(unit)}".rstrip()
        distance = [_decades(report.decades.get(name))] if further else []
        results.add_row(row.label, value, ends, *distance)
    parts: list[Any] = [audited, reasons, results]
    if report.evidence:
        parts.append(_measured_table(report.evidence))
    # What is shipped stands on the page.
    if report.num_named > 1:
        parts.append(machine_table(report.machines[: report.num_named]))
    if report.law:
        parts.append(report.law.table())
    console.print(Group(*parts))


def _decades(distance: float | None) -> str:
    """A distance in a column that is named after it."""
    if distance is None:
        return ""
    return f"{distance:.1f}" if distance > 0 else "within"


def _measured_table(evidence: dict[str, Any]) -> Table:
    title = f"a pass of Sora by the cost law of {evidence['points']} passes measured on {evidence['device']}"
    columns = (
        "attention",
        "MACs a pass",
        "over x180 rule",
        "error of the extrapolation",
        "after a GPU's sweep",
    )
    table = Table(*columns, title=title)
    table.title_justify = "left"
    for kind, row in evidence["sora_step"].items():
        error = f"{error_words(row['extrapolation_error'])}, {row['decades_beyond_largest_point']:.1f} decades out"
        macs = human(row["macs_per_step"], "MAC/pass")
        left = decades_words(row["decades_beyond_a_sweep_on_a_gpu"])
        table.add_row(kind, macs, f"{row['over_per_frame_rule']:.2f}x", error, left)
    table.caption = (
        f"the law's error on held-out passes: {error_words(evidence['held_out_error_macs'])} in MACs, "
        f"{evidence['held_out_error_seconds']:.0%} in seconds"
    )
    return table
