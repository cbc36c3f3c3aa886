"""benchmarks/RESULTS.md and README.md say what the result files say, and every result file is in a table."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
# A result stands in a generated block: outside of them no sentence holds a score, a share or a cost.
RESULT = re.compile(r"\d[\d.,]* ?(?:%|dB\b|px\b|GMACs\b|of \d)")
GENERATED = re.compile(r"<!-- results: (\S+) -->\n.*?\n<!-- end -->", re.S)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import results

    return results


def test_results_and_readme_are_up_to_date() -> None:
    check = [sys.executable, "scripts/results.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}run: python scripts/results.py"


def test_a_changed_result_puts_page_and_readme_out_of_date(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(
        results.RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.mp4", "*.png", "*.gif")
    )
    readme = Path(shutil.copy(results.README, tmp_path))
    page = Path(shutil.copy(results.PAGE, tmp_path))
    for name, path in (("RESULTS", tmp_path / "results"), ("README", readme), ("PAGE", page)):
        monkeypatch.setattr(results, name, path)
    monkeypatch.setattr(sys, "argv", ["results.py", "--check"])
    assert results.main() == 0
    demo = tmp_path / "results" / "toy" / "demo.json"
    content = json.loads(demo.read_text())
    content["prompts"]["kinds"]["plain"]["all_right"]["right"] = 13
    demo.write_text(json.dumps(content))
    assert results.main() == 1
    error = capsys.readouterr().err
    for name in ("RESULTS.md", "README.md"):
        assert f"{name} is out of date: run python scripts/results.py" in error
    monkeypatch.setattr(sys, "argv", ["results.py"])
    assert results.main() == 0
    assert "13 of 72" in readme.read_text()
    assert "13 of 72" in page.read_text()


def test_every_result_file_is_in_a_table(results: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: set[Path] = set()
    read_text = Path.read_text

    def read(path: Path, *args: str, **options: str) -> str:
        shown.add(path)
        return read_text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", read)
    results.page()
    # metrics.jsonl are the demo's learning curves, ten thousand numbers that no table could show.
    files = [*results.RESULTS.rglob("*.json"), *results.RESULTS.rglob("results.jsonl")]
    assert len(files) > 20
    assert [path for path in files if path not in shown] == []


def test_a_result_file_is_named_by_theme_machine_and_date(results: ModuleType) -> None:
    vendors = {"Sapphire Rapids": "Intel", "Zen 4": "AMD", "Zen 3": "AMD"}
    for path in results.RESULTS.glob("*.json"):
        theme, machine, date = path.stem.split("_")
        assert theme in results.COMMANDS, path.name
        content = json.loads(path.read_text())
        assert content.get("date", date)[:10] == date, path.name
        device = content.get("machine") or content.get("device")
        if device:
            assert vendors[results.MACHINES[machine]] in device["name"], path.name


def test_no_cell_holds_more_than_one_result(results: ModuleType) -> None:
    for line in results.PAGE.read_text().splitlines():
        if line.startswith("|"):
            for cell in line.split("|"):
                # A case, such as 129x768x768 on 8 H100, or an interval.
                assert len(re.findall(r"(?<![\w.])[\d.,]+", cell)) <= 4, cell


def test_every_result_in_the_readme_is_generated(results: ModuleType) -> None:
    text = results.README.read_text()
    assert set(GENERATED.findall(text)) == set(results.BLOCKS)
    written = re.sub(r"```.*?```", "", GENERATED.sub("", text), flags=re.S)
    assert RESULT.findall(written) == []


def test_links_of_the_results_lead_somewhere(results: ModuleType) -> None:
    text = results.PAGE.read_text()
    headings = {results._anchor(title) for title in re.findall(r"^## (.*)$", text, re.M)}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for target in links:
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (results.PAGE.parent / target).is_file()


def test_the_readme_is_read_in_one_sitting(results: ModuleType) -> None:
    assert len(results.README.read_text().split()) <= 1000


def test_the_moving_pictures_of_the_readme_are_small(results: ModuleType) -> None:
    pictures = [ROOT / name for name in re.findall(r"!\[[^]]*\]\((.*\.gif)\)", results.README.read_text())]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= 2_000_000, picture.name


def test_plans_and_variants_of_worlds_have_a_row_each(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(
        results.RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.mp4", "*.png", "*.gif")
    )
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    rate = {"right": 37, "total": 50, "share": 0.74, "interval": [0.6, 0.84]}
    row = {"reached": rate, "seconds_a_decision": 0.25}
    plan = {
        "cost": "frames",
        "rows": {"random": {**row, "seconds_a_decision": None}, "a planner": {**row, "in_dream": rate}},
        "gap_closed": {"a planner": {"planner, true simulator": 0.611}},
    }
    variant = {
        "decoding": {"labels": {"200": {"codes": 0.913}}},
        "delta_psnr": {"delta": 4.567},
        "player": {"median_error": {"8": 2.22, "32": None}, "player_there": {"32": 0.41}},
        "seconds_a_frame": 0.0321,
    }
    for theme, content in (("plan", plan), ("ablations", {"variants": {"no cache": variant}})):
        file = tmp_path / "results" / f"world-{theme}_zen-3_2026-11-27.json"
        file.write_text(json.dumps(content))
    page = results.page()
    assert (
        "| a planner | Zen 3 | 2026-11-27 | frames | 74 % | 60 % to 84 % | 61 % | 37 of 50 | – | 0.250 | – |"
        in page
    )
    assert "| random | Zen 3 | 2026-11-27 | frames | 74 % | 60 % to 84 % | – | – | – | – | – |" in page
    assert "| no cache | Zen 3 | 2026-11-27 | 91.3 % | 4.57 | 2.2 | – | – | 41 % | – | 0.032 |" in page
