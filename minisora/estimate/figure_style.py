"""One look for every figure of the report: sizes, colours, number formats, and how they reach the disk.

A figure is 7.5 inches wide, 720 px on a page, so that a 9 pt letter is 12 px high there. It stands on a white
card of its own and reads on a light page and on a dark one. Text stays text in the SVG. Colours are those of
Okabe and Ito, told apart by colour-blind readers too, and what a colour means never changes: grey is published,
vermilion corrected, blue ours.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from minisora.estimate.figure_words import power
from minisora.files import write_whole

WIDTH = 7.5  # inches
PNG_DPI = 150
SMALL, NORMAL = 9.0, 9.5  # points; nothing is smaller

INK, SOFT, GRID = "#1a1a1a", "#5c5c5c", "#e3e3e3"
PUBLISHED, CORRECTED, OURS = "#5c5c5c", "#b84f00", "#0072b2"  # vermilion a shade darker, for letters on white
GREEN, PURPLE, SKY, ORANGE = "#009e73", "#a8557f", "#56b4e9", "#e69f00"
MARKERS = {PUBLISHED: "s", CORRECTED: "D", OURS: "o"}

_STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same layout on every machine
    "font.size": NORMAL,
    "text.color": INK,
    "text.parse_math": False,  # "$" is dollars
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": NORMAL,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "path.simplify": True,
}
# The layout is measured in DejaVu Sans, the widest of these: whichever a page has, the letters fit.
_FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"

# Drawing starts from matplotlib's own defaults, not from what a user's matplotlibrc or a notebook has set.
_DRAWN = (
    "axes",
    "xtick",
    "ytick",
    "grid",
    "lines",
    "patch",
    "font",
    "text",
    "figure",
    "savefig",
    "svg",
    "path",
)
_DEFAULTS = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.split(".")[0] in _DRAWN}

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class NamedFigure:
    """A figure and what goes around it.

    Args:
        name: stem of its file.
        title: a short line; not drawn, so that a page can set it in its own type.
        caption: a sentence that says what to see, with numbers from the model.
        figure: the drawing.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def named(name: str, title: str, caption: str, figure: Figure) -> NamedFigure:
    """A figure with its name and title attached, from where the SVG takes them."""
    figure.set_gid(f"figure-{name}")
    figure.set_label(title)
    return NamedFigure(name, title, caption, figure)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A drawing function under the house style, whatever style its caller has set."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with _style():
            return draw(*args, **kwargs)

    return inner


def _style(**more: Any) -> AbstractContextManager[None]:
    return matplotlib.rc_context({**_DEFAULTS, **_STYLE, **more})


# Figures and axes.


def canvas(height: float) -> Figure:
    """An empty figure of the page's width; height in inches."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def panel(
    figure: Figure, *, left: float, top: float, height: float, right: float = 0.2, width: float | None = None
) -> Axes:
    """Axes placed by hand, in inches: measuring every label for a layout would take longer than drawing.

    Args:
        figure: from `canvas`.
        left, right, top: margins to the figure's edges.
        height: of the axes.
        width: of the axes, instead of `right`.
    """
    total = figure.get_figheight()
    width = WIDTH - left - right if width is None else width
    return figure.add_axes((left / WIDTH, 1 - (top + height) / total, width / WIDTH, height / total))


def heading(axes: Axes, text: str, color: str = INK) -> None:
    """A bold line over the left end of axes."""
    axes.set_title(text, loc="left", fontsize=NORMAL, fontweight="bold", color=color, pad=6)


def log_axis(
    axes: Axes, which: str, low: float, high: float, label: Callable[[float], str] | None = None
) -> None:
    """A logarithmic axis with ticks at powers of ten, and between them where it spans two or less.

    Args:
        axes: to change.
        which: "x" or "y".
        low, high: its ends.
        label: how ticks are written; powers of ten by default.
    """
    decades = math.log10(high / low)
    steps: Sequence[float] = (1,)
    if decades <= 2 + 1e-9:
        steps = (1, 2, 5) if decades > 0.6 else range(1, 10)
    stride = max(1, math.ceil(decades / 9))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [m * 10.0**e for e in range(first, last + 1, stride) for m in steps]
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(FixedLocator([t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]))
    axis.set_minor_locator(NullLocator())
    write = label or power
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_tick_params(length=3)


def color_of(preset: str) -> str:
    """Grey for the published preset, vermilion for the corrected one, blue for any other."""
    return {"as_published": PUBLISHED, "corrected": CORRECTED}.get(preset, OURS)


def rows_axis(axes: Axes, count: int) -> None:
    """A vertical axis of `count` rows, the first on top, without ticks or line: rows carry their own labels."""
    axes.set_ylim(count - 0.5, -0.5)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)


def row_label(axes: Axes, row: float, text: str, **style: Any) -> None:
    """Text that ends at the left edge of axes, level with a row."""
    axes.annotate(
        text, (0, row), xycoords=axes.get_yaxis_transform(), xytext=(-8, 0), textcoords="offset points",
        ha="right", va="center", **style,
    )  # fmt: skip


def note(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float] = (0, 0), **style: Any
) -> None:
    """A direct label at a point of the data, shifted by points."""
    axes.annotate(
        text, at, xytext=shift, textcoords="offset points",
        **{"fontsize": SMALL, "va": "center", "annotation_clip": False, **style},
    )  # fmt: skip


def slope_angle(axes: Axes) -> float:
    """Degrees at which a line of proportionality rises on two logarithmic axes, for text along it."""
    box = axes.get_position()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    across = box.width * WIDTH / math.log10(x1 / x0)
    up = box.height * figure.get_figheight() / math.log10(y1 / y0)
    return math.degrees(math.atan2(up, across))


# To disk.

_rendered: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()


def svg_text(figure: Figure) -> str:
    """A figure as SVG to put into a page: no prolog, ids of its own, styles that stay inside.

    A figure is rendered once; what is changed in it afterwards is not seen.
    """
    if figure not in _rendered:
        name = figure.get_gid() or "figure"
        title = figure.get_label()
        with _style(**{"svg.hashsalt": name}):
            text = io.StringIO()
            metadata = {"Date": None, "Creator": None, "Title": str(title)}
            figure.savefig(text, format="svg", metadata=metadata)
        _rendered[figure] = _embeddable(text.getvalue(), name)
    return _rendered[figure]


def _embeddable(svg: str, name: str) -> str:
    """Figures share a page: ids must differ between them and their style rules must not leak out."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("*{stroke-linejoin", f"#{name} *{{stroke-linejoin", 1)
    svg = svg.replace("font-family: 'DejaVu Sans'", f"font-family: {_FONTS}").replace(
        "'DejaVu Sans';", f"{_FONTS};"
    )
    return svg.replace("<svg ", f'<svg id="{name}" role="img" ', 1)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png, each whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    with _style():
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    header = '<?xml version="1.0" encoding="utf-8"?>\n'
    for suffix, content in (("svg", (header + svg_text(figure)).encode()), ("png", png.getvalue())):
        write_whole(folder / f"{name}.{suffix}", content)
