"""The figures draw what the model says, for every preset, the same way twice."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from minisora.report import assumptions
from minisora.report.backtest import backtest
from minisora.report.claims import printed_values
from minisora.report.figures.rows import compared_rows
from minisora.report.figures.style import ORANGE
from minisora.report.figures.write_figures import (
    FIGURES,
    FigureContext,
    draw,
    draw_figures,
    left_out,
    save,
    svg_text,
)
from minisora.report.sensitivity import bridge, influences, monte_carlo
from minisora.report.video_models import load_models
from minisora.report.words import big, factor, power, short

load_preset = cache(assumptions.load_preset)
SPEED = "sora_minutes_per_gpu_hour"
PUBLISHED = printed_values()


def context_of(
    preset: str, items: tuple[str, ...] = (), rows: list[dict[str, Any]] | None = None
) -> FigureContext:
    chosen = load_preset(preset).set_by_user(items)
    run = monte_carlo(chosen, 500)
    found = influences(chosen, SPEED, run.draws, run.results[SPEED].value) if run.intervals[SPEED] else []
    return FigureContext(chosen, run, found, rows or [])


@pytest.fixture(scope="module")
def measured() -> FigureContext:
    return context_of("measured", rows=[row.to_dict() for row in backtest(load_models())])


@pytest.fixture(scope="module")
def drawn(measured: FigureContext) -> dict[str, Figure]:
    return {name: one.figure for name, one in draw_figures(measured).items()}


def artist(figure: Figure, gid: str):
    (found,) = figure.findobj(lambda one: one.get_gid() == gid)
    return found


def point(figure: Figure, gid: str) -> tuple[float, float]:
    x, y = artist(figure, gid).get_data()
    return float(np.ravel(x)[0]), float(np.ravel(y)[0])


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text)]


@pytest.mark.parametrize("preset", assumptions.presets())
def test_every_preset_has_all_figures_that_it_has_the_data_for(preset: str) -> None:
    context = context_of(preset)
    figures = draw_figures(context)
    missing = left_out(context)
    assert list(figures) == [name for name in FIGURES if name not in missing]
    certain = {"as_published": {"tornado", "against_interval"}, "corrected": {"tornado"}}
    assert set(missing) == {"backtest", *certain.get(preset, ())}
    assert all(len(reason) > 20 for reason in missing.values())
    for one in figures.values():
        assert one.title
        assert re.search(r"\d", one.caption), one.caption
        assert one.caption.endswith(".")


def test_a_value_set_by_hand_is_drawn() -> None:
    context = context_of("as_published", ("sora.params=40e9",))
    figure = draw("waterfall_serving", context).figure
    assert "Sora's parameters: 20B → 40B" in texts(figure)


def test_no_mark_is_cut_by_the_edge_of_its_axes(drawn: dict[str, Figure]) -> None:
    seen = 0
    for name, figure in drawn.items():
        figure.draw_without_rendering()
        for axes in figure.axes:
            box = axes.bbox
            for line in axes.lines:
                if line.get_marker() in ("", "None", None) or not line.get_clip_on():
                    continue
                radius = line.get_markersize() / 2 * figure.dpi / 72
                for x, y in line.get_transform().transform(np.column_stack(line.get_data())):
                    seen += 1
                    assert box.x0 + radius <= x <= box.x1 - radius, (name, line.get_gid())
                    assert box.y0 + radius <= y <= box.y1 - radius, (name, line.get_gid())
    assert seen > 30


# Numbers.


def test_break_evens_are_the_model_s_and_the_printed_ones(
    drawn: dict[str, Figure], measured: FigureContext
) -> None:
    results = measured.assumptions.best
    figure = drawn["sora_break_even"]
    for end in ("low", "high"):
        x, y = point(figure, f"even-{end}-1")
        assert x == pytest.approx(results[f"sora_break_even_{end}"])
        assert y == pytest.approx(results[f"sora_training_compute_{end}"])
        printed = PUBLISHED[f"sora_break_even_{end}"]
        assert f"{short(printed)} min" in texts(figure)
        assert point(figure, f"even-{end}-0")[0] == pytest.approx(printed, rel=0.004)
    assert [point(figure, f"mark-0-{i}")[0] for i in (0, 1)] == [17e6, 43e6]
    assert point(drawn["dit_break_even"], "even-training-1")[0] == pytest.approx(
        results["dit_break_even_images"]
    )
    assert point(drawn["dit_break_even"], "even-training-0")[0] == pytest.approx(7.6e6, rel=0.01)
    assert point(drawn["dit_break_even"], "mark-0-0")[0] == 95e6


def test_inference_lines_cross_training_at_the_break_even(drawn: dict[str, Figure]) -> None:
    for name in ("dit_break_even", "sora_break_even"):
        for panel in (0, 1):
            x, y = artist(drawn[name], f"inference-{panel}").get_data()
            label = "training" if name.startswith("dit") else "low"
            even, training = point(drawn[name], f"even-{label}-{panel}")
            assert y[0] / x[0] == pytest.approx(training / even)


def test_compute_per_output_is_in_like_units_beside_the_published(drawn: dict[str, Figure]) -> None:
    figure = drawn["compute_per_output"]
    for preset in ("as_published", "corrected", "measured"):
        results = load_preset(preset).best
        names = ("sora_compute_per_minute", "gpt4_compute_per_output", "llama2_70b_compute_per_output")
        for row, name in enumerate((*names, "dit_compute_per_image")):
            assert point(figure, f"{preset}-{row}")[0] == pytest.approx(results[name])


def test_demand_grows_from_89k_to_720k_and_mended_from_125k_to_997k(drawn: dict[str, Figure]) -> None:
    heights = [
        [bar.get_height() for bar in container.patches]
        for container in drawn["demand"].axes[0].containers
    ]  # fmt: skip
    assert heights[0] == pytest.approx([10.7e6 / 120 * n for n in (1, 2, 4, 8)])
    assert heights[1] == pytest.approx([14.95e6 / 120 * n for n in (1, 2, 4, 8)])
    assert heights[2][-1] == pytest.approx(load_preset("corrected").best["peak_demand_gpus"])


@pytest.mark.parametrize("result", ["sora_training_compute_high", "sora_training_compute_low", SPEED])
@pytest.mark.parametrize("preset", ["corrected", "measured", "modern", "modern_distilled"])
def test_steps_of_a_bridge_multiply_to_the_whole_change(preset: str, result: str) -> None:
    start, end = load_preset("as_published"), load_preset(preset)
    steps = bridge(start, end, result)
    whole = end.best[result] / start.best[result]
    assert np.prod([step.factor for step in steps]) == pytest.approx(whole, rel=1e-12)
    assert steps[0].before == start.best[result]
    assert steps[-1].after == end.best[result]
    assert all(a.after == b.before for a, b in pairwise(steps))
    changed = {name for name, entry in end.entries.items() if entry.value != start.entries[name].value}
    assert {name for step in steps for name in step.names} <= changed


def test_the_corrected_factors_are_two_and_the_rounding() -> None:
    steps = bridge(load_preset("as_published"), load_preset("corrected"), "sora_training_compute_high")
    assert {step.names[0]: round(step.factor, 3) for step in steps} == {
        "count.flops_per_mac": 2.0,
        "dit.round_training_compute": 1.209,
    }


def test_no_steps_between_equal_presets() -> None:
    assert bridge(load_preset("measured"), load_preset("measured"), SPEED) == []


def test_bars_of_the_waterfall_are_the_steps(drawn: dict[str, Figure], measured: FigureContext) -> None:
    figure = drawn["waterfall_training"]
    ends = [preset.best["sora_training_compute_high"] for preset in measured.chain]
    totals = [
        point(figure, one.get_gid()) for one in figure.findobj() if str(one.get_gid()).startswith("total-")
    ]
    assert [x for x, _ in sorted(totals, key=lambda total: total[1])] == pytest.approx(ends)
    product = 1.0
    for bar in figure.axes[0].patches:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        product *= left / right if to_hex(bar.get_facecolor()) == ORANGE else right / left  # down or up
    assert product == pytest.approx(ends[-1] / ends[0])


def test_attention_share_is_the_model_s_and_half_at_6d(
    drawn: dict[str, Figure], measured: FigureContext
) -> None:
    results = measured.assumptions.best
    figure = drawn["attention_share"]
    clip = point(figure, "mark-1")[0]
    assert clip == results["tokens_per_clip"]
    for kind in ("full", "factorised", "divided"):
        x, y = artist(figure, f"share-{kind}").get_data()
        share = np.interp(np.log(clip), np.log(x), y)
        assert share == pytest.approx(results[f"attention_share_{kind}"], rel=2e-3)
    x, y = artist(figure, "share-full").get_data()
    assert np.interp(np.log(point(figure, "mark-0")[0]), np.log(x), y) == pytest.approx(0.5, abs=0.01)


def test_the_tornado_is_sorted_and_shows_what_moves_the_result(
    drawn: dict[str, Figure], measured: FigureContext
) -> None:
    figure, best = drawn["tornado"], measured.assumptions.best[SPEED]
    assert point(figure, "best")[0] == best
    for row, influence in enumerate(one for one in measured.influences if one.swing > 1.05):
        for end, value in (("low", influence.at_low), ("high", influence.at_high)):
            bar = artist(figure, f"{end}-{row}")
            ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()))
            assert ends == pytest.approx(sorted((value, best)))


def test_break_even_by_steps_passes_through_the_model(
    drawn: dict[str, Figure], measured: FigureContext
) -> None:
    entries = measured.assumptions.entries
    passes = entries["serve.guidance_passes"].value
    x, y = artist(drawn["steps_break_even"], "steps-0" if passes == 1 else "steps-1").get_data()
    there = np.exp(np.interp(np.log(entries["serve.steps"].value), np.log(x), np.log(y)))
    assert there == pytest.approx(measured.assumptions.best["sora_break_even"], rel=2e-3)
    assert np.all(np.diff(y) < 0)


def test_intervals_are_drawn_over_what_was_published(
    drawn: dict[str, Figure], measured: FigureContext
) -> None:
    figure, intervals = drawn["against_interval"], measured.monte_carlo.intervals
    published = {
        "sora_training_compute": (1.1e25 * 2.7e25) ** 0.5,
        SPEED: 5.0,
        "sora_break_even": (15.3e6 * 38.1e6) ** 0.5,
        "peak_demand_gpus": 720e3,
    }
    for row, (name, printed) in enumerate(published.items()):
        low, middle, high = intervals[name]  # type: ignore[misc]
        assert artist(figure, f"interval-{row}").get_xdata() == pytest.approx([low / printed, high / printed])
        assert point(figure, f"median-{row}")[0] == pytest.approx(middle / printed)


def test_every_model_has_a_line_of_marks_and_unverified_ones_are_hollow(
    drawn: dict[str, Figure], measured: FigureContext
) -> None:
    figure, line = drawn["backtest"], 0
    groups = compared_rows(measured.backtest)
    assert list(groups) == ["seconds", "training", "step"]
    for kind, group in groups.items():
        key = "seconds_factor" if kind == "seconds" else "training_factor"
        for model in dict.fromkeys(row["model"] for row in group):
            line += 1
            for place, row in enumerate(row for row in group if row["model"] == model):
                mark = artist(figure, f"ours-{line}-{place}")
                assert point(figure, f"ours-{line}-{place}") == (pytest.approx(row[key]), line)
                if row[f"naive_{key}"]:
                    assert point(figure, f"naive-{line}-{place}")[0] == pytest.approx(row[f"naive_{key}"])
                assert (mark.get_markerfacecolor() == "white") == (row["grade"] != "primary")
        # A heading.
        line += 1


# Form.


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["corrected", "measured", "modern_distilled"])
def test_nothing_is_drawn_small_outside_or_over_another_label(preset: str, measured: FigureContext) -> None:
    context = measured if preset == "measured" else context_of(preset, rows=measured.backtest)
    for name, one in draw_figures(context).items():
        figure = one.figure
        # Ticks out of view are not written. First, because a legend's letters lie where the last drawing put them.
        written = {node.text for node in ElementTree.fromstring(svg_text(figure)).iter()}
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        boxes = []
        for text in figure.findobj(Text):
            if not text.get_text().strip() or text.get_text() not in written:
                continue
            assert text.get_fontsize() >= 9, (name, text.get_text())
            box = text.get_window_extent(renderer)
            if box.width < 1:
                continue
            assert box.x0 >= 0 and box.y0 >= 0, (name, text.get_text())  # noqa: PT018
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, (name, text.get_text())  # noqa: PT018
            boxes.append((text, box))
        for i, (one, box) in enumerate(boxes):
            for other, its in boxes[i + 1 :]:
                if one.get_rotation() or other.get_rotation():
                    continue
                across = min(box.x1, its.x1) - max(box.x0, its.x0)
                up = min(box.y1, its.y1) - max(box.y0, its.y0)
                assert across < 2 or up < 4, (name, one.get_text(), other.get_text())


def test_svg_is_xml_with_a_title_its_own_ids_and_text_as_text(drawn: dict[str, Figure]) -> None:
    page_ids: set[str] = set()
    for name, figure in drawn.items():
        text = svg_text(figure)
        assert text.startswith("<svg ")
        root = ElementTree.fromstring(text)
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        assert title.text == figure.get_label()
        ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
        assert len(ids) == len(set(ids))
        assert not page_ids & set(ids)
        page_ids |= set(ids)
        for reference in re.findall(r'(?:url\(#|href="#)([^")]+)', text):
            assert reference in ids, name
        assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) > 8
        assert "sans-serif" in text
        assert "*{" not in text.replace(f"#figure-{name} *{{", "")


def test_two_runs_write_the_same_bytes(measured: FigureContext, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for name in list(FIGURES)[:3]:
            save(draw(name, measured).figure, tmp_path / folder, name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 6
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_caller_s_style_changes_nothing(measured: FigureContext) -> None:
    import matplotlib

    plain = svg_text(draw("demand", measured).figure)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert svg_text(draw("demand", measured).figure) == plain


def test_numbers_are_written_short() -> None:
    assert [short(v) for v in (0.0746, 5.035, 89167, 999_600, 15.3e6, 1.2e9)] == [
        "0.0746", "5.04", "89.2k", "1M", "15.3M", "1.2B",
    ]  # fmt: skip
    assert [power(v) for v in (1e25, 2e25, 0.1)] == ["10²⁵", "2×10²⁵", "10⁻¹"]
    assert [big(v) for v in (1.08e25, 9.97e24)] == ["1.1×10²⁵", "1×10²⁵"]
    assert [factor(v) for v in (2, 1.0061, 0.163, 1609)] == ["×2.00", "×1.006", "×0.163", "×1609"]
