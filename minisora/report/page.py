"""The report's page: one self-contained HTML file, its figures and a model that a reader can move inside."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup

from minisora.report import words
from minisora.report.assumptions import GPU, Assumption, Assumptions, gpus, presets, shipped
from minisora.report.claims import CLAIMS, claims_of
from minisora.report.javascript import SCRIPT_HEAD, Traced, function_script
from minisora.report.model import Inputs, estimate
from minisora.report.units import Quantity

MAIN = (
    "sora.params", "sora.seconds", "sora.fps", "sora.height", "sora.width", "sora.vae_frames", "sora.attention",
    "sora.data_multiplier_low", "sora.data_multiplier_high", "serve.steps", "serve.guidance_passes",
    "train.utilisation", "serve.utilisation", GPU, "demand.tiktok_share", "demand.youtube_share",
)  # fmt: skip
BY_GPU = ("hardware.peak", "hardware.power", "hardware.price")
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ReportPage:
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


def render_page(data: ReportPage) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    environment.filters |= {
        "human": words.human,
        "interval": words.interval_words,
        "decades": words.decades_words,
    }
    environment.filters |= {
        "cell": words.cell_words,
        "unit_beside": words.unit_beside,
        "error": words.error_words,
        "whole": words.unbroken,
    }
    marks = words.distance_marks(
        [distance for part in ("results", "claims") for distance in _distances(data.report[part].values())]
    )
    environment.filters |= {
        "mark": partial(_mark, marks=marks),
        "legend": lambda rows: _legend(_distances(rows), marks),
    }
    measured = data.report.get("measured_here") or {}
    model = page_model(data.assumptions, measured.get("largest_point_macs"))
    assumptions = {row["name"]: row for row in model["assumptions"]}
    folded = {
        title: [
            row for name, row in assumptions.items() if name not in MAIN and name.startswith(prefix + ".")
        ]
        for prefix, title in words.ASSUMPTION_GROUPS.items()
    }
    claims = [{**claim, "label": words.claim_words(name), **verdict(name, claim)} for name, claim in
              data.report["claims"].items()]  # fmt: skip
    checked = [claim["word"] for claim in claims if claim["word"] in ("yes", "no")]
    return environment.get_template("page.html").render(
        data=data,
        report=data.report,
        claims=claims,
        follow=(checked.count("yes"), len(checked)),
        tiles=_tiles(data.report),
        groups=_grouped(data.report["results"]),
        backtest=_tables(data.report.get("backtest") or []),
        implied=_implied(data.report.get("backtest_implies") or {}),
        measured=measured,
        machines=data.report.get("machines") or [],
        law=data.report.get("ladder_law"),
        figures=[(title, caption, Markup(svg[svg.index("<svg") :])) for title, caption, svg in data.figures],
        main=[assumptions[name] for name in MAIN],
        folded={title: rows for title, rows in folded.items() if rows},
        model=model,
        headline={name: result.label for name, result in words.result_words().items() if result.headline},
        scripts=[Markup(each) for each in (model_script(data.assumptions.inputs()), words.numbers_script(),
                                           (FOLDER / "controls.js").read_text())],
    )  # fmt: skip


def page_model(own: Assumptions, largest_macs: float | None = None) -> dict[str, Any]:
    """What the scripts need: every assumption with its limits, the presets' values, GPUs and units.

    Args:
        own: where the sliders start.
        largest_macs: of a pass that was measured, a sample; None: none was.
    """
    known = {name: shipped(name) for name in presets()}
    order = ["as_published", "corrected", "measured", "modern", "modern_distilled"]
    order = [name for name in order if name in known] + [name for name in known if name not in order]
    values = [{"name": name, "title": known[name].title, "base": name,
               "values": _values(known[name])} for name in order]  # fmt: skip
    start = next((preset for preset in values if preset["values"] == _values(own)), None)
    # A calibration, --set or a preset from a file.
    if start is None:
        base = own.preset if own.preset in known else order[0]
        start = {"name": "this report", "title": own.title, "base": base, "values": _values(own)}
        values.insert(0, start)
    return {
        "assumptions": [_control(name, entry, [own, *known.values()]) for name, entry in own.entries.items()],
        "presets": values,
        "start": start["name"],
        "gpus": {gpu.name: dict(zip(BY_GPU, (gpu.peak, gpu.power, gpu.price[1]), strict=True))
                 for gpu in gpus().values()},
        "units": {name: quantity.unit for name, quantity in own.results.items()},
        "largest_macs": largest_macs,
    }  # fmt: skip


def _values(assumptions: Assumptions) -> dict[str, float | str | None]:
    return {name: entry.value for name, entry in assumptions.entries.items()}


def _control(name: str, entry: Assumption, known: list[Assumptions]) -> dict[str, Any]:
    """One assumption as a control: its slider reaches a factor of 20 beyond every preset, within the limits."""
    row: dict[str, Any] = {
        "name": name,
        "about": entry.about,
        "unit": words.unit_words(entry.unit),
        "status": entry.status,
        "source": entry.source,
        "value": entry.value,
        "range": None if entry.is_certain else (entry.low, entry.high),
    }
    if entry.choices:
        return {**row, "kind": "choice", "choices": [(c, words.CHOICES.get(c, c)) for c in entry.choices]}
    low, high = entry.limits or (0.0, 1e300)
    row |= {"limits": [low, high]}
    if entry.is_switch:
        return {**row, "kind": "switch"}
    if entry.spread == "linear":
        return {**row, "kind": "linear", "ends": [low, high]}
    points = [v for a in known if isinstance(v := a.entries[name].value, float) and v > 0] or [high / 1e3]
    ends = [max(low, min(points) / 20), min(high, max(points) * 20)]
    return {**row, "kind": "log", "ends": ends, "zero": low == 0}


def _tiles(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page opens with: a result, its interval, and what was published for it."""
    tiles = []
    for name, result in words.result_words().items():
        if result.headline and name in report["results"]:
            ends = [
                report["claims"][claim]["published"] for claim in claims_of(name) if claim in report["claims"]
            ]
            published = words.interval_words(ends, digits=5) if len(ends) > 1 else ""
            published = words.human(ends[0], digits=5) if len(ends) == 1 else published
            tiles.append({**report["results"][name], "label": result.label, "published": published})
    return tiles


def _grouped(results: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Results by heading; one without words stands under its own name."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    known = words.result_words()
    for name in [
        *(name for name in known if name in results),
        *(name for name in results if name not in known),
    ]:
        group, label = (
            (known[name].group, known[name].label) if name in known else ("More", name.replace("_", " "))
        )
        groups.setdefault(group, {})[name] = {**results[name], "label": label}
    return groups


def verdict(name: str, claim: dict[str, Any]) -> dict[str, str]:
    """Whether a claim follows, as a word; what is only stated, or only drawn, has nothing to follow from."""
    if claim["published"] is None:
        return {"word": "not printed", "mood": "soft"}
    if claim["follows"] and CLAIMS[name].derive is None:
        return {"word": "an input", "mood": "soft"}
    return {"word": "yes", "mood": "right"} if claim["follows"] else {"word": "no", "mood": "wrong"}


def _distances(rows: Iterable[dict[str, Any]]) -> list[float | None]:
    """How many decades beyond the largest measured pass each row lies; None: it rests on none, or is not told."""
    return [row.get("decades_beyond") if row.get("measured", 0) is not None else None for row in rows]


def _mark(decades: float | None, marks: dict[str, str]) -> Markup:
    """The mark of a distance, behind a number."""
    text = words.decades_words(decades)
    return Markup('<sup class="soft" title="{}">{}</sup>').format(text, marks[text]) if text else Markup("")


def _legend(distances: Iterable[float | None], marks: dict[str, str]) -> str:
    """What the marks of a table mean."""
    seen = set(map(words.decades_words, distances))
    return "; ".join(f"{mark} {text}" for text, mark in marks.items() if text in seen)


def _tables(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The back-test as a table of how well the method does, and one of every model and column."""
    own = {key for row in rows for key in row}
    known = {key: label for key, label in words.BACKTEST.items() if key in own}
    rest = {key: label for key, label in words.BACKTEST_REST.items() if key in own}
    every = {
        **known,
        **rest,
        **{key: key.replace("_", " ") for row in rows for key in row if key not in {**known, **rest}},
    }
    judged = [
        row for row in rows if any(row.get(key) is not None for key in known if key.endswith("_factor"))
    ]
    whole = _table("All columns of the back-test", rows, every)
    title = f"Each of {len(judged)} cases: what the method says, and what was disclosed"
    return [_table(title, judged, known), whole] if judged else [whole]


def _table(title: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> dict[str, Any]:
    kinds = {
        key: "text" if any(isinstance(row.get(key), str) for row in rows) else "number" for key in columns
    }
    return {
        "title": title,
        "head": [(kinds[key], label) for key, label in columns.items()],
        "rows": [
            [
                (kinds[key], words.unbroken(words.cell_words(row.get(key), words.column_unit(key))))
                for key in columns
            ]
            for row in rows
        ],
    }


def _implied(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """What the back-test implies: a value and, where given, its interval, the range and number of models."""
    names = [
        key for key in tree if not key.endswith(("_interval", "_range")) and not key.startswith("models_in_")
    ]
    return [
        {
            "label": words.IMPLIED.get(name, name.replace("_", " ")),
            "value": tree[name],
            "interval": tree.get(f"{name}_interval"),
            "range": tree.get(f"{name}_range"),
            "models": tree.get(f"models_in_{name}"),
        }
        for name in names
    ]


# The model as JavaScript: `model.estimate` run once on numbers that write down what happens to them.


def model_script(inputs: Inputs) -> str:
    """A script with the function `estimate`: an object of inputs by assumption in, one of results by name out.

    Args:
        inputs: of any preset; only their names and units are used.
    """

    def named(numbers: dict[str, Traced]) -> dict[str, Any]:
        return {
            name: Quantity(cast(Any, numbers[name]), value.powers)
            if isinstance(value, Quantity)
            else numbers[name]
            for name, value in inputs.items()
        }

    written = function_script(
        "estimate",
        inputs,
        lambda numbers: {name: each.value for name, each in estimate(named(numbers)).items()},
    )
    return f"{SCRIPT_HEAD}{written}"
