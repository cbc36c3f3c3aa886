"""A ladder's law in the report: a known optimum comes back, the distance is told, what says nothing is told too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from minisora.cli import app
from minisora.errors import UserError
from minisora.files import write_json
from minisora.report.assumptions import load_preset
from minisora.report.compose import build_report, write_report
from minisora.report.ladder_law import read_law
from minisora.scaling.fit_laws import PUBLISHED, fit_ladder

E, A, ALPHA, B, BETA, TOKENS = 0.2, 40.0, 0.34, 90.0, 0.28, 80


def rows() -> list[dict[str, Any]]:
    """Of a ladder of 5 budgets x 5 sizes under a known law, 6 FLOPs a parameter and token."""
    found = []
    for times in (1, 2, 4, 8, 32):
        for dial, params in enumerate(np.geomspace(3e5, 1e7, 5)):
            flops = 2e12 * times
            tokens = flops / (6 * params)
            loss = E + A * params**-ALPHA + B * tokens**-BETA
            row = {"axis": "isoflop", "times": times, "dial": dial, "flops": flops, "params": params}
            found.append({**row, "samples": tokens / TOKENS, "loss": float(loss)})
    return found


@pytest.fixture(scope="module")
def law_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("law") / "law.json"
    fit_ladder(rows(), TOKENS).write(path)
    return path


def test_the_best_size_of_a_known_law_comes_back_with_its_interval(law_file: Path) -> None:
    law = read_law(law_file)
    own, best = law.rows[0], law.law.optimal
    exponent = BETA / (ALPHA + BETA)
    factor = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA))
    assert own.exponent == pytest.approx(exponent, rel=0.05)
    # Of losses without noise, so a point but for what each CPU rounds.
    low, high = own.exponent_interval or (0, 0)
    assert low - 1e-9 <= own.exponent <= high + 1e-9
    assert high - low < 1e-6
    for flops, params, decades in zip(best.flops, own.params, best.decades_beyond_data, strict=True):
        assert 0.1 < params / (factor * (flops / 6) ** exponent) < 10  # eleven decades out
        assert decades == pytest.approx(np.log10(flops / 6.4e13), abs=0.01)
    chinchilla = next(row for row in law.rows if "Chinchilla" in row.law)
    assert chinchilla.params[0] == pytest.approx((1e25 / 120) ** 0.5)
    assert chinchilla.decades_beyond_data[0] == pytest.approx(np.log10(1e25 / 3e21))


@pytest.mark.parametrize("has_size_law", [True, False])
def test_a_law_is_written_as_it_was_read(tmp_path: Path, has_size_law: bool) -> None:
    shipped = json.loads((Path(__file__).parents[2] / "benchmarks/results/ladder/law.json").read_text())
    if not has_size_law:
        shipped["size_law"] = None
        del shipped["optimal"]["parabolas"]
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    write_json(before, shipped)
    read_law(before).law.write(after)
    assert after.read_bytes() == before.read_bytes()


def test_the_budgets_asked_about_are_the_reports_training_in_flops(law_file: Path) -> None:
    results = load_preset("corrected").results
    ends = [float(results[f"sora_training_compute_{end}"].value) for end in ("low", "high")]
    assert read_law(law_file).law.optimal.flops[1:] == pytest.approx(ends, rel=0.005)


def test_a_published_law_ends_where_its_largest_model_does() -> None:
    hunyuan = next(law for law in PUBLISHED if law.name == "HunyuanVideo, video")
    assert hunyuan.params(hunyuan.fitted_until) == pytest.approx(6.6e9)


@pytest.mark.slow
def test_the_report_says_how_far_the_law_reaches(law_file: Path, tmp_path: Path) -> None:
    report = build_report("measured", law=law_file)
    write_report(report, tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["ladder_law"]
    assert "THIS LADDER ENDS 12.0 DECADES BELOW" in told["verdict"]
    assert "THIS LADDER ENDS 12.0 DECADES BELOW" in (tmp_path / "report.html").read_text()
    shown = CliRunner().invoke(app, ["report", "--law", str(law_file), "--out", str(tmp_path)])
    assert shown.exit_code == 0
    assert "12.0 DECADES BELOW" in " ".join(shown.output.split())
    assert build_report("measured").to_dict()["ladder_law"] is None


def test_the_verdict_takes_whole_intervals_and_no_law_of_text(law_file: Path) -> None:
    law = read_law(law_file)
    wide = replace(law.rows[0], params_intervals=[(1e7, 1e16)] * 3)
    verdict = replace(law, rows=[wide, *law.rows[1:]]).verdict()
    assert "1e+07 to 1e+16 parameters, on both sides of its 2e+10" in verdict
    verdict = replace(law, rows=[replace(row, determined=not row.own) for row in law.rows]).verdict()
    assert "parameters, above its 2e+10" in verdict
    chinchilla = next(row for row in law.rows if "Chinchilla" in row.law)
    assert f"{chinchilla.params[-1]:.2g}" not in verdict


def test_a_law_that_its_runs_do_not_determine_says_nothing(law_file: Path, tmp_path: Path) -> None:
    tree = json.loads(law_file.read_text())
    tree["optimal"]["loss_law"]["determined"] = False
    tree["optimal"].pop("parabolas", None)
    path = tmp_path / "law.json"
    path.write_text(json.dumps(tree))
    law = read_law(path)
    assert not law.rows[0].determined
    assert "none of them is this ladder's" in law.verdict()


@pytest.mark.parametrize("text", [None, "{}", "[1]", "no json"])
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "law.json"
    if text is not None:
        path.write_text(text)
    message = "no law at" if text is None else "is not a law of a ladder"
    with pytest.raises(UserError, match=message) as caught:
        read_law(path)
    assert "\n" not in str(caught.value)
