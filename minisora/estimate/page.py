"""The report's page: one self-contained HTML file, its figures and a model that a reader can move inside."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from minisora.estimate import labels
from minisora.estimate.assumptions import GPU, Assumption, Assumptions, gpus, load_preset, presets
from minisora.estimate.claims import DERIVATIONS
from minisora.estimate.model import estimate

MAIN = (
    "sora.params", "sora.seconds", "sora.fps", "sora.height", "sora.width", "sora.vae_frames", "sora.attention",
    "sora.data_multiplier_low", "sora.data_multiplier_high", "serve.steps", "serve.guidance_passes",
    "train.utilisation", "serve.utilisation", GPU, "demand.tiktok_share", "demand.youtube_share",
)  # fmt: skip
BY_GPU = ("hardware.peak", "hardware.power", "hardware.price")
FOLDER = Path(__file__).parent
_CLAIM_WORDS = (
    ("dit", "DiT"), ("sora", "Sora"), ("h100", "H100"), ("llama2 70b", "Llama 2 70B"), ("gpt4", "GPT-4"),
    ("tiktok", "TikTok"), ("youtube", "YouTube"), ("ai", "AI"), ("low", "(low)"), ("high", "(high)"),
)  # fmt: skip


@dataclass(frozen=True)
class PageData:
    """Everything the page shows.

    Args:
        report: the tree of report.json.
        figures: title, caption and SVG of each.
        assumptions: what the report was made from; the sliders start there.
        day: of the report.
    """

    report: dict[str, Any]
    figures: list[tuple[str, str, str]]
    assumptions: Assumptions
    day: str


def render_page(data: PageData) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    environment.filters |= {"human": labels.human, "interval": labels.interval_words, "cell": cell_words}
    environment.filters |= {"unit": labels.unit_words, "unit_beside": labels.unit_beside}
    model = page_model(data.assumptions)
    assumptions = {row["name"]: row for row in model["assumptions"]}
    folded = {
        title: [
            row for name, row in assumptions.items() if name not in MAIN and name.startswith(prefix + ".")
        ]
        for prefix, title in labels.ASSUMPTION_GROUPS.items()
    }
    claims = [{**claim, "label": claim_words(name), **verdict(name, claim)} for name, claim in
              data.report["claims"].items()]  # fmt: skip
    checked = [claim["word"] for claim in claims if claim["word"] in ("yes", "no")]
    return environment.get_template("page.html").render(
        data=data,
        report=data.report,
        claims=claims,
        follow=(checked.count("yes"), len(checked)),
        tiles=_tiles(data.report),
        groups=_grouped(data.report["results"]),
        backtest=_table(data.report.get("backtest") or []),
        implies=data.report.get("backtest_implies") or {},
        measured=data.report.get("measured_here"),
        figures=[(title, caption, Markup(svg[svg.index("<svg") :])) for title, caption, svg in data.figures],
        main=[assumptions[name] for name in MAIN],
        folded={title: rows for title, rows in folded.items() if rows},
        model=model,
        headline=labels.HEADLINE,
        result_labels=labels.RESULTS,
        scripts=[Markup((FOLDER / name).read_text()) for name in ("model.js", "controls.js")],
    )  # fmt: skip


def page_model(own: Assumptions) -> dict[str, Any]:
    """What the scripts need: every assumption with its limits, the presets' values, GPUs and units."""
    shipped = {name: load_preset(name) for name in presets()}
    order = ["as_published", "corrected", "measured", "modern", "modern_distilled"]
    order = [name for name in order if name in shipped] + [name for name in shipped if name not in order]
    values = [{"name": name, "title": shipped[name].title, "base": name,
               "values": _values(shipped[name])} for name in order]  # fmt: skip
    start = next((preset for preset in values if preset["values"] == _values(own)), None)
    if start is None:  # a calibration, --set or a preset from a file
        base = own.preset if own.preset in shipped else order[0]
        start = {"name": "this report", "title": own.title, "base": base, "values": _values(own)}
        values.insert(0, start)
    return {
        "assumptions": [_control(name, entry, [own, *shipped.values()]) for name, entry in own.entries.items()],
        "presets": values,
        "start": start["name"],
        "gpus": {gpu.name: dict(zip(BY_GPU, (gpu.peak, gpu.power, gpu.price[1]), strict=True))
                 for gpu in gpus().values()},
        "units": {name: quantity.unit for name, quantity in estimate(own.inputs()).items()},
    }  # fmt: skip


def _values(assumptions: Assumptions) -> dict[str, float | str | None]:
    return {name: entry.value for name, entry in assumptions.entries.items()}


def _control(name: str, entry: Assumption, known: list[Assumptions]) -> dict[str, Any]:
    """One assumption as a control: its slider reaches a factor of 20 beyond every preset, within the limits."""
    row: dict[str, Any] = {
        "name": name,
        "about": entry.about,
        "unit": labels.unit_words(entry.unit),
        "status": entry.status,
        "source": entry.source,
        "value": entry.value,
        "range": None if entry.is_certain else (entry.low, entry.high),
    }
    if entry.choices:
        return {**row, "kind": "choice", "choices": [(c, labels.CHOICES.get(c, c)) for c in entry.choices]}
    low, high = entry.limits or (0.0, 1e300)
    row |= {"limits": [low, high]}
    if entry.spread == "factor" and (low, high) == (0, 1) and not entry.unit:
        return {**row, "kind": "switch"}  # a factor cannot range from 0 to 1: these are read as no and yes
    if entry.spread == "linear":
        return {**row, "kind": "linear", "ends": [low, high]}
    points = [v for a in known if isinstance(v := a.entries[name].value, float) and v > 0] or [high / 1e3]
    ends = [max(low, min(points) / 20), min(high, max(points) * 20)]
    return {**row, "kind": "log", "ends": ends, "zero": low == 0}


def _tiles(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page opens with: a result, its interval, and what was published for it."""
    tiles = []
    for name, (label, ids) in labels.HEADLINE.items():
        if name in report["results"]:
            ends = [report["claims"][i]["published"] for i in ids if i in report["claims"]]
            published = labels.interval_words(ends, digits=5) if len(ends) > 1 else ""
            published = labels.human(ends[0], digits=5) if len(ends) == 1 else published
            tiles.append({**report["results"][name], "label": label, "published": published})
    return tiles


def _grouped(results: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Results by heading; one without a label stands under its own name."""
    groups = {
        title: {name: {**results[name], "label": label} for name, label in group.items() if name in results}
        for title, group in labels.RESULT_GROUPS.items()
    }
    groups["More"] = {name: {**result, "label": name.replace("_", " ")}
                      for name, result in results.items() if name not in labels.RESULTS}  # fmt: skip
    return {title: group for title, group in groups.items() if group}


def claim_words(name: str) -> str:
    """A claim's id as readable text."""
    text = name.replace("_", " ")
    for word, better in _CLAIM_WORDS:
        text = re.sub(rf"\b{word}\b", better, text)
    return text[0].upper() + text[1:]


def verdict(name: str, claim: dict[str, Any]) -> dict[str, str]:
    """Whether a claim follows, as a word; what is only stated, or only drawn, has nothing to follow from."""
    if claim["published"] is None:
        return {"word": "not printed", "mood": "soft"}
    if claim["follows"] and name not in DERIVATIONS:
        return {"word": "an input", "mood": "soft"}
    return {"word": "yes", "mood": "right"} if claim["follows"] else {"word": "no", "mood": "wrong"}


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of any keys as a table, columns in the order in which they appear."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {"head": [key.replace("_", " ") for key in keys],
            "rows": [[row.get(key) for key in keys] for row in rows]}  # fmt: skip


def cell_words(value: Any) -> str:
    """Any value of a back-test row as text."""
    if value is None or value == "":
        return labels.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        # A year is no quantity: 2,024 would be wrong.
        return str(value) if isinstance(value, int) and 1990 <= value < 2100 else labels.human(float(value))
    if isinstance(value, list | tuple):
        return (" to " if all(isinstance(v, float) for v in value) else ", ").join(map(cell_words, value))
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {cell_words(v)}" for key, v in value.items())
    return str(value)
