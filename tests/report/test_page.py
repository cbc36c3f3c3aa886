"""The page: complete, self-contained, escaped; and it moves as a reader moves it, in a real browser."""

import html
import json
import math
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import find_chromium
from processes import STARTS, finish

from minisora.report import words
from minisora.report.assumptions import Assumptions, gpus, load_preset, presets
from minisora.report.backtest import backtest, implication
from minisora.report.model import estimate
from minisora.report.page import MAIN, ReportPage, render_page
from minisora.report.video_models import load_models

SVG = '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


def report_tree(assumptions: Assumptions) -> dict[str, Any]:
    """A tree as report.json has it. Its claims and back-test are placeholders."""
    results = assumptions.results
    claim = {"published": 4211.0, "recomputed": 4210.9, "follows": True, "corrected": 1.0, "measured": None,
             "interval": [1.0, 2.0, 3.0], "note": "fine", "unit": "H100-month"}  # fmt: skip
    return {
        "preset": assumptions.preset,
        "claims": {
            "sora_training_h100_months_low": claim,
            "ai_minutes_per_day": {**claim, "follows": False, "note": "<script>alert(1)</script> & more"},
            "data_multiplier_low": {**claim, "published": 4.0, "interval": None},
        },
        "results": {
            name: {"value": float(q.value), "unit": q.unit, "interval": [1e6, 2e6, 3e6] if "cost" in name else None}
            for name, q in results.items()
        },
        "backtest": [{"model": "A <b>", "year": 2024, "error_factor": 1.25, "verified": True, "range": [1.0, 2.0]},
                     {"model": "B", "note": None}],
    }  # fmt: skip


@cache
def rendered(preset: str = "measured", *changes: str) -> str:
    assumptions = load_preset(preset).set_by_user(changes)
    return render_page(
        ReportPage(report_tree(assumptions), [("A <title>", "a <caption>", SVG)], assumptions, "2026-01-02")
    )


def test_every_result_and_every_claim_is_on_the_page() -> None:
    page = rendered()
    for name in load_preset("measured").results:
        assert f'data-static="{name}"' in page, name
        for part in ("now", "preset", "ratio"):
            assert f'data-result="{name}" data-of="{part}"' in page, name
    for text in (
        "Sora training H100 months (low)",
        "4,211",
        "1 to 3",
        ">no<",
        ">yes<",
        ">an input<",
        "error factor",
    ):
        assert text in page, text


def test_every_result_has_words() -> None:
    assert set(words.result_words()) == set(load_preset("measured").results)
    assert sum(result.headline for result in words.result_words().values()) == 6


def test_a_result_without_words_is_shown_under_its_name() -> None:
    assumptions = load_preset("corrected")
    tree = report_tree(assumptions)
    tree["results"]["some_new_number"] = {"value": 7.0, "unit": "GPU", "interval": None}
    assert "some new number" in render_page(ReportPage(tree, [], assumptions, "2026-01-02"))


def test_every_assumption_has_a_labelled_control() -> None:
    page = rendered()
    for name in load_preset("measured").entries:
        assert page.count(f'data-assumption="{name}"') == 1, name
        assert f'<label for="box-{name}">' in page
        assert f'id="box-{name}"' in page
    assert page.index(f'data-assumption="{MAIN[-1]}"') < page.index("All other assumptions")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_page_loads_nothing_and_escapes_what_it_is_given() -> None:
    page = rendered()
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href|action|data)=["']?(https?:)?//""", page)
    assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import|<link|fetch\(|XMLHttpRequest", page)
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    for text in ("A <b>", "A <title>", "a <caption>"):
        assert text not in page
        assert html.escape(text) in page
    assert "<?xml" not in page
    assert "<!DOCTYPE svg" not in page


def test_a_source_cannot_end_the_data_of_the_scripts() -> None:
    assumptions = load_preset("corrected").change("sora.params", about="</script><b>x", source="</script>")
    page = render_page(ReportPage(report_tree(assumptions), [], assumptions, "2026-01-02"))
    assert "</script><b>x" not in page
    data = re.search(r'id="model-data">(.*?)</script>', page, re.DOTALL)
    assert data
    names = [row["about"] for row in json.loads(data[1])["assumptions"]]
    assert "</script><b>x" in names


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (10528.3, "", "10,528"), (4210.9, "", "4,211"), (15.3e6, "min", "15.3 million"), (0.0, "GPU", "0"),
        (2.417e25, "FLOP", "2.417 × 10²⁵"), (5e-5, "", "5 × 10⁻⁵"), (0.18619, "", "0.1862"), (None, "", "–"),
        (math.nan, "", "–"), (1.25e9, "$", "$1.25 billion"), (0.351, "$/min", "$0.351"), (999_999.0, "", "1 million"),
    ],
)  # fmt: skip
def test_numbers_as_a_reader_writes_them(value: float | None, unit: str, text: str) -> None:
    assert words.human(value, unit) == text


def test_words_for_units_intervals_cells_and_claims() -> None:
    assert words.unit_words("h*kW") == "kWh"
    assert words.interval_words((14.5e6, 2e7, 116e6)) == "14.5 to 116\u00a0million"
    assert words.interval_words(None) == "–"
    assert [words.cell_words(v) for v in (None, True, 2024, 1.25, [1.0, 2.0], {"a_b": 1})] == [
        "–", "yes", "2024", "1.25", "1 to 2", "a b 1"]  # fmt: skip
    assert words.cell_words(5.2e11, "FLOP") == "5.2 × 10¹¹"
    assert [words.decades_words(each) for each in (None, 6.83, -0.2)] == [
        "", "6.8 decades out", "within what was measured"]  # fmt: skip
    marks = words.distance_marks([6.83, None, 2.3, 6.84, -0.2])
    assert marks == {"6.8 decades out": "*", "2.3 decades out": "†", "within what was measured": "‡"}
    assert list(words.distance_marks([float(n) for n in range(1, 9)]).values())[-1] == "[8]"
    assert [words.error_words(each) for each in (2e-15, 1e-7, 0.0012)] == [
        "exact",
        "below 0.0001 %",
        "0.1200 %",
    ]
    assert words.unbroken("49x480x720, 1 x H100") == "49x480x720, 1\u00a0x\u00a0H100"
    assert words.claim_words("gpt4_compute_per_output") == "GPT-4 compute per output"
    assert words.claim_words("tiktok_ai_share") == "TikTok AI share"


# In a real browser.


def dump_dom(page: str, folder: Path) -> str:
    """The page after its scripts ran."""
    browser = find_chromium()
    if browser is None:
        pytest.skip("needs Chromium")
    file = folder / "page.html"
    file.write_text(page)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}",
               "--virtual-time-budget=3000", "--dump-dom", file.as_uri()]  # fmt: skip
    done = finish(command, STARTS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_browser(page: str, script: str, folder: Path) -> Any:
    """What a script that ends in `return VALUE` finds when it runs at the end of the page."""
    harness = (
        '<pre id="found"></pre><script>(() => { const out = document.getElementById("found");'
        f"try {{ out.textContent = JSON.stringify((() => {{ {script} }})()); }}"
        "catch (error) { out.textContent = JSON.stringify({error: error.stack}); } })();</script></body>"
    )
    dom = dump_dom(page.replace("</body>", harness), folder)
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert text, dom[-2000:]
    found = json.loads(html.unescape(text[1]))
    assert not (isinstance(found, dict) and "error" in found), found
    return found


def assert_same(found: dict[str, float | None], inputs: Any) -> None:
    """Results from the page against Python's, to six significant digits and every name."""
    with np.errstate(all="ignore"):
        expected = estimate(inputs)
    assert list(found) == list(expected)
    for name, quantity in expected.items():
        # JSON has no infinity: a tiny Sora rounded to no DiT at all.
        if found[name] is None:
            assert not np.isfinite(quantity.value), name
            continue
        assert found[name] == pytest.approx(float(quantity.value), rel=5e-7, abs=1e-300), name


def plain_inputs(assumptions: Assumptions, changed: dict[str, Any]) -> dict[str, Any]:
    return {name: changed.get(name, entry.value) for name, entry in assumptions.entries.items()}


# Move an element as a reader does, then read what stands on the page.
READ = """
  const shown = (of) => Object.fromEntries([...document.querySelectorAll(`td[data-of=${of}]`)].map(
    (cell) => [cell.dataset.result, Number(cell.dataset.value)]));
  const texts = () => Object.fromEntries([...document.querySelectorAll("td[data-of=now]")].map(
    (cell) => [cell.dataset.result, cell.textContent]));
  const move = (name, part, value) => {
    const element = document.querySelector(`[data-assumption="${name}"] [data-${part}]`);
    if (element.type === "checkbox") element.checked = value; else element.value = value;
    element.dispatchEvent(new Event("input", {bubbles: true}));
    return element;
  };
  const press = (name) => document.querySelector(`[data-preset="${name}"]`).click();
  const settings = () => ({values: {...state.values}, now: shown("now"), preset: shown("preset"), texts: texts(),
    command: document.getElementById("command").textContent});
"""


def rebuilt(command: str) -> Assumptions:
    """What the command line that the page gives would compute."""
    words = shlex.split(command)
    assert words[:3] == ["minisora", "report", "--preset"]
    assert words[4::2] == ["--set"] * ((len(words) - 4) // 2)
    return load_preset(words[3]).set_by_user(words[5::2])


def test_moving_a_control_moves_every_result(tmp_path: Path) -> None:
    script = READ + """
      const found = {};
      found.start = settings();
      for (const preset of PAGE.presets) { press(preset.name); found[preset.name] = settings(); }
      press("modern");
      move("sora.params", "box", "31.5e9");
      move("serve.steps", "slider", "700");
      move("sora.attention", "box", "factorised");
      move("sora.count_images", "box", false);
      move("demand.tiktok_share", "slider", "333");
      move("serve.decode_macs_per_pixel", "slider", "0");
      move("sora.height", "box", "1,080");
      found.moved = settings();
      move("hardware.gpu", "box", "B200");
      move("hardware.price", "box", "6.25");
      found.gpu = settings();
      found.mark = document.querySelector('[data-assumption="hardware.gpu"]').classList.contains("moved");
      const before = JSON.stringify(settings()), box = move("sora.fps", "box", "1e9");
      found.refused = [before === JSON.stringify(settings()), box.getAttribute("aria-invalid"),
        document.getElementById("error-sora.fps").textContent];
      document.getElementById("reset").click();
      found.reset = settings();
      return found;
    """  # fmt: skip
    found = in_browser(rendered(), script, tmp_path)
    measured = load_preset("measured")
    results = measured.results
    # What is read, and what Python wrote above it.
    for name, text in found["start"]["texts"].items():
        assert text == words.human(float(results[name].value), results[name].unit), name

    for name in presets():
        assert found[name]["values"] == plain_inputs(load_preset(name), {}), name
        assert_same({n: found[name]["now"][n] for n in results}, load_preset(name).inputs())
        assert found[name]["command"] == f"minisora report --preset {name}"
    moved, gpu = found["moved"], found["gpu"]
    assert moved["values"]["sora.params"] == 31.5e9
    assert moved["values"]["sora.attention"] == "factorised"
    assert moved["values"]["sora.count_images"] == 0
    assert moved["values"]["serve.decode_macs_per_pixel"] == 0
    assert moved["values"]["sora.height"] == 1080
    assert moved["values"]["demand.tiktok_share"] == pytest.approx(0.33)
    assert 50 < moved["values"]["serve.steps"] < 1000
    assert gpu["values"]["hardware.peak"] == gpus()["B200"].peak
    assert gpu["values"]["hardware.price"] == 6.25
    assert found["mark"] is True
    for step in (moved, gpu):
        assert_same({n: step["now"][n] for n in results}, load_preset("modern").inputs(step["values"]))
        assert_same({n: step["preset"][n] for n in results}, load_preset("modern").inputs())
        assert plain_inputs(rebuilt(step["command"]), {}) == step["values"]
    assert found["refused"] == [True, "true", "a number from 1 to 120"]
    assert found["reset"] == found["modern"]


def test_a_report_of_its_own_settings_starts_from_them(tmp_path: Path) -> None:
    page = rendered("measured", "sora.params=33e9", "hardware.gpu=A100 80GB")
    assert page.count("data-preset=") == len(presets()) + 1
    found = in_browser(page, READ + "return settings();", tmp_path)
    own = load_preset("measured").set_by_user(["sora.params=33e9", "hardware.gpu=A100 80GB"])
    assert found["values"] == plain_inputs(own, {})
    assert (
        found["command"]
        == "minisora report --preset measured --set sora.params=33e9 --set 'hardware.gpu=A100 80GB'"
    )
    assert plain_inputs(rebuilt(found["command"]), {}) == found["values"]


# A pass of Sora by a measured law, as of minisora.report.measured_inputs.sora_from_points.
A_PASS = {
    "macs_per_step": 1.72e16,
    "over_per_frame_rule": 6.15,
    "extrapolation_error": 1e-9,
    "decades_beyond_largest_point": 6.9,
    "decades_beyond_a_sweep_on_a_gpu": 3.0,
    "seconds_per_step_on_this_machine": 5e4,
}


def test_the_distance_follows_what_a_reader_moves(tmp_path: Path) -> None:
    assumptions = load_preset("measured")
    measured = {
        "points": 51,
        "device": "a CPU",
        "largest_point_macs": 2.5e9,
        "sora_step": {"full": A_PASS},
    }
    tree = {**report_tree(assumptions), "measured_here": measured}
    page = render_page(ReportPage(tree, [], assumptions, "2026-01-02"))
    script = READ + """
      const distance = document.getElementById("distance"), found = [];
      const keep = () => found.push([{...state.values}, Number(distance.dataset.value), distance.textContent]);
      keep(); move("sora.params", "box", "1e9"); keep(); move("sora.attention", "box", "factorised"); keep();
      return found;
    """  # fmt: skip
    rows = in_browser(page, script, tmp_path)
    assert len({distance for _, distance, _ in rows}) == 3
    for values, distance, text in rows:
        macs = float(estimate(assumptions.inputs(values))["sora_macs_per_step"].value)
        assert distance == pytest.approx(math.log10(macs / 2.5e9), rel=5e-7)
        assert f"{words.human(macs, 'MAC', 3)} MACs, {distance:.1f} decades beyond" in text
    assert 'id="distance"' not in rendered()


def test_sliders_and_boxes_hold_every_preset_exactly(tmp_path: Path) -> None:
    script = READ + """
      return PAGE.presets.map((preset) => {
        press(preset.name);
        return [preset.name, PAGE.assumptions.map((row) => {
          const element = document.querySelector(`[data-assumption="${row.name}"]`);
          const box = element.querySelector("[data-box]"), slider = element.querySelector("[data-slider]");
          return [row.name, box.type === "checkbox" ? String(Number(box.checked)) : box.value,
            slider === null ? null : Number(slider.value)];
        })];
      });
    """  # fmt: skip
    for preset, rows in in_browser(rendered(), script, tmp_path):
        entries = load_preset(preset).entries
        assert [row[0] for row in rows] == list(entries)
        for name, text, position in rows:
            value = entries[name].value
            assert text == value if isinstance(value, str) else float(text) == value, name
            assert position is None or 0 <= position <= 1000
            if (
                isinstance(value, float)
                and value > 0
                and position is not None
                and entries[name].limits[0] < value
            ):
                assert position > 0, name


@pytest.mark.parametrize("width", [320, 375, 768])
def test_nothing_is_wider_than_the_screen(width: int, tmp_path: Path) -> None:
    """A headless window has a least width of its own, so the page stands in a frame and tells what it finds."""
    tell = """<script>
      for (const part of document.querySelectorAll("details")) part.open = true;
      const wide = [...document.querySelectorAll("body *")].filter((element) =>
        element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".scroll, .plot, .hidden"));
      parent.postMessage([innerWidth, document.documentElement.scrollWidth, wide.map((e) => e.outerHTML)], "*");
    </script></body>"""
    (tmp_path / "inner.html").write_text(rendered().replace("</body>", tell))
    outer = f"""<!doctype html><body><pre id="found"></pre><script>onmessage = (event) => {{
      document.getElementById("found").textContent = JSON.stringify(event.data); }};</script>
      <iframe src="inner.html" style="border: 0; width: {width}px; height: 800px"></iframe></body>"""
    text = re.search(r'<pre id="found">(.+?)</pre>', dump_dom(outer, tmp_path), re.DOTALL)
    assert text
    inner, scroll, wide = json.loads(html.unescape(text[1]))
    assert (inner, wide) == (width, [])
    assert scroll <= width


def test_the_back_test_leads_with_what_matters_and_keeps_the_rest() -> None:
    assumptions = load_preset("corrected")
    row = {
        "model": "M",
        "case": "c",
        "seconds": 10.0,
        "seconds_factor": 1.5,
        "flops_per_clip": 4e15,
        "odd_key": 7.5,
    }
    implied = {
        "time_correction": 1.25,
        "time_correction_interval": [0.5, 2.0],
        "models_in_time_correction": 11,
    }
    tree = {**report_tree(assumptions), "backtest": [row], "backtest_implies": implied}
    page = render_page(ReportPage(tree, [], assumptions, "2026-01-02"))
    first, rest = page.split("All columns of the back-test")
    assert "Each of 1 cases: what the method says" in first
    assert page.count('<details class="printed">') == 2
    assert "predicted over disclosed" in first
    assert "odd key" not in first
    assert "odd key" in rest
    assert "4 × 10¹⁵" in rest
    assert "FLOPs of a clip" in rest
    for text in (words.IMPLIED["time_correction"], ">1.25<", ">0.5 to 2<", ">11<"):
        assert text in first


def test_reports_own_keys_have_words() -> None:
    rows = backtest(load_models())
    assert set(words.BACKTEST) | set(words.BACKTEST_REST) == set(rows[0].to_dict())
    assert set(words.IMPLIED) <= set(implication(rows))


def test_what_was_measured_here_is_shown_where_there_is_any() -> None:
    assumptions = load_preset("corrected")
    tree = {**report_tree(assumptions), "measured_here": {
        "points": 51, "device": "a <CPU>", "held_out_error_macs": 1e-7, "sora_step": {"full": A_PASS}}}  # fmt: skip
    page = render_page(ReportPage(tree, [], assumptions, "2026-01-02"))
    for text in (
        "51 passes that really ran on a &lt;CPU&gt;",
        "1.72 × 10¹⁶",
        ">over the ×180 rule<",
        ">6.15x<",
    ):
        assert text in page
    assert "Measured here" not in rendered()
