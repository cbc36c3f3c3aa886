"""What is printed is printed as it is: no markup, no picture, no control of the terminal, no broken character."""

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

import minisora
from minisora.screen import Table, counting, plain, say

PACKAGE = Path(minisora.__file__).parent
HOSTILE = "out[v2]/[/b] [red]x[/red] :dog: \\[y] $a$ <script>"


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_is_printed_as_it_is_and_never_wrapped(terminal: Console) -> None:
    say(terminal, ("wrote ", "bold"), HOSTILE, "!" * 300, style="red")
    assert shown(terminal) == f"wrote {HOSTILE}{'!' * 300}\n"


def test_parts_have_the_styles_that_are_asked_for() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    say(console, ("[b]", "bold"), " x")
    assert shown(console) == "\x1b[1m[b]\x1b[0m x\n"


def test_a_table_shows_its_strings_as_they_are(terminal: Console) -> None:
    table = Table(HOSTILE, title=f"title {HOSTILE}", caption=f"caption {HOSTILE}")
    table.add_column(f"late {HOSTILE}")
    table.add_row(f"cell {HOSTILE}", "two\nlines")
    terminal.print(table)
    for part in (HOSTILE, f"title {HOSTILE}", f"caption {HOSTILE}", f"late {HOSTILE}", f"cell {HOSTILE}"):
        assert part in shown(terminal)
    assert "│ two " in shown(terminal)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("caf\udce9", r"caf\udce9"),
        ("\x1b[31m\a\x9b", r"\x1b[31m\x07\x9b"),
        ("a\nb\tc\x7f", r"a\nb\tc\x7f"),
        ("é 🐶 红 e\u0301", "é 🐶 红 e\u0301"),
    ],
)
def test_what_no_terminal_may_obey_is_escaped(text: str, want: str, terminal: Console) -> None:
    assert plain(text) == want
    say(terminal, text)
    assert shown(terminal) == want + "\n"


def test_nothing_in_the_package_prints_past_say() -> None:
    """Rich parses markup in strings that are printed, in cells of its tables, and in columns of its bars."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "screen.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
                assert node.module not in {"rich.table", "rich.markup", "rich.panel", "rich.prompt"}, where
                assert node.module != "rich" or names == {"box"}, where
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "TextColumn" and "{" in ast.unparse(node.args[0]):
                assert "markup=False" in ast.unparse(node), where
            if called in {"print", "log", "rule"} and "console" in ast.unparse(node.func):
                assert isinstance(node.args[0], ast.Call | ast.Name), f"{where}: use minisora.screen.say"
            assert called not in {"from_markup", "render_str", "secho", "echo"}, where
            if called == "status" and "console" in ast.unparse(node.func):
                assert not any(isinstance(part, ast.Name) for part in ast.walk(node.args[0])) or "len(" in (
                    ast.unparse(node.args[0])
                ), f"{where}: a status is markup"


def test_pages_escape_and_figures_have_no_formulas() -> None:
    """Every HTML template is rendered with escapes, and `safe` stands only on figures drawn here."""
    for path in PACKAGE.rglob("*.html"):
        text = path.read_text()
        for marked in (part.split("}}")[0] for part in text.split("{{")[1:]):
            assert "safe" not in marked or marked.strip() in {"vae_curve | safe", "dit_curve | safe"}, path
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Environment"):
                text = ast.unparse(node)
                assert "autoescape=True" in text or path.name == "model_folder.py", path


def test_a_count_is_a_bar_on_a_terminal_and_nothing_in_a_log() -> None:
    for terminal in (True, False):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, color_system=None, width=80)
        with counting(console, "[red]clips") as progress:
            progress(3, 7)
        assert ("3/7" in file.getvalue()) == terminal
        assert ("[red]clips" in file.getvalue()) == terminal
