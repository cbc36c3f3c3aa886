"""The pages of docs/: their commands run, their links lead somewhere, and the generated ones are up to date.

A ```bash block is a session in a folder that holds what `workspace` makes. Of its commands

- `minisora ...` runs in this process, with the settings of `QUICK` added, which make it small;
- what takes minutes, more processes or the network (`CHECKED`) is checked: its command, options and values are
  parsed as the real command line does, and the configs and scripts that it names exist;
- `cp FROM TO` copies a file;
- anything else fails: a page may hold no command that nobody tried.

A ```python block runs as it stands; blocks of a page share their names. Commands that end in an error stand in
```text blocks, which are not looked at, as outputs are not.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from minisora.cli import app
from minisora.config_files import find

# Every command of every page: not for the inner loop.
pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
# Its commands are checked, not run: they use what a reader has trained.
README = ROOT / "README.md"

_SMALL_STEPS = ["--set", "train_caption.steps=2", "--set", "train_caption.batch_size=2"]
# Arguments added to a command, the longest beginning that fits: the last of two values of an option counts.
QUICK: dict[str, list[str]] = {
    "data make": ["--clips", "8", "--config", "tiny.yaml"],
    "train": ["--config", "tiny.yaml", "--set", "train_vae.steps=4", "--set", "train_dit.steps=4"],
    "sample": ["--steps", "1"],
    "edit": ["--steps", "2"],
    "augment": ["--steps", "2"],
    "distill": ["--samples", "4", "--set", "train_dit.steps=2", "--set", "train_dit.batch_size=2"],
    "caption train": [*_SMALL_STEPS, "--set", "train_caption.views_in_all=8"],
    "world record": ["--clips", "2", "--frames", "9"],
    "evaluate prompts": ["--prompts", "prompts.txt", "--steps", "1"],
    "evaluate run": ["--samples", "2", "--steps", "1"],
}
# Beginnings of commands that are checked and not run, and why.
CHECKED: dict[str, str] = {
    "minisora demo": "trains for minutes",
    "minisora train --data clips --minutes": "trains for minutes",
    "minisora train --data my_clips --minutes": "trains for minutes",
    "minisora world train": "trains for minutes",
    "minisora world name": "needs a world that was trained for minutes",
    "minisora world export": "needs a world that was trained for minutes",
    "minisora world evaluate": "needs a world that was trained for minutes",
    "minisora world plan": "needs a world that was trained for minutes; tests/worlds/test_planning.py has one",
    "minisora calibrate --out": "times real passes for a minute",
    "minisora scale run": "trains for minutes",
    "minisora flops --diffusers": "counts billions of parameters, which tests/flops does",
    "minisora plan diffusers:": "counts billions of parameters; tests/plan/test_foreign.py counts small ones",
    "minisora world play": "waits for a person; tests/player has one",
    "minisora report --preset measured": "is the same command with a larger preset",
    "minisora evaluate prompts --model toy": "judges hundreds of clips of full size",
    "minisora studio": "serves until it is stopped",
    "minisora sample --recipe": "needs a video of the studio, which tests/pipelines/test_remake.py has",
    "accelerate launch": "starts other processes",
    "bash scripts/": "installs, or trains for minutes",
    "python scripts/": "has a test of its own",
    "python -m pytest": "is this suite",
    "python -m pip": "installs",
    "python3 -m venv": "makes an environment",
    "source .venv/bin/activate": "changes a shell",
    "git clone": "needs the network",
    "cd ": "changes the folder of a shell",
    "mkdocs ": "has a test of its own",
    "pip ": "installs",
}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_config_file: Path) -> Path:
    """What the pages take for granted: a folder of clips, half of them captioned, a trained run, an image."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(tiny_config_file, folder / "tiny.yaml")
    (folder / "prompts.txt").write_text("a red circle moving left\na blue square moving up\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _run("data make clips")
        _run("train --data clips --out runs/mine")
        # What the tutorial trains for minutes.
        shutil.copytree("runs/mine", "runs/my_clips")
        shutil.copytree("clips", "half")
        rows = Path("half/metadata.csv").read_text().splitlines()
        Path("half/metadata.csv").write_text("\n".join(rows[:5]) + "\n")
        shutil.copy("clips/clip_00000.mp4", "clip.mp4")
        shutil.copy("clips/clip_00001.mp4", "other.mp4")
        Image.new("RGB", (64, 64), (20, 20, 40)).save("photo.png")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_says_runs(
    page: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list(_blocks(page))
    if not blocks:
        return
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
            continue
        for command in _commands(text):
            if not _checked(command):
                assert command.startswith(("minisora ", "cp ")), f"neither run nor checked: {command}"
                _run(command.removeprefix("minisora "))


def test_the_commands_of_the_readme_exist() -> None:
    for language, text in _blocks(README):
        for command in _commands(text) if language == "bash" else []:
            if not _checked(command):
                assert command.startswith("minisora "), f"neither run nor checked: {command}"
                _check(shlex.split(command)[1:])


@pytest.mark.parametrize(
    "command",
    [
        "minisora demo --fast",
        "minisora demo --config nowhere",
        "minisora calibrate --out x.json --device tpu",
        "bash scripts/nowhere.sh",
        "accelerate launch --config_file nowhere.yaml -m minisora train",
        "accelerate launch --config_file configs/accelerate/ddp.yaml -m minisora train --fast",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises(Exception, match=r"fast|nowhere|tpu"):
        _checked(command)


def test_commands_and_config_keys_are_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    assert subprocess.run(check, cwd=ROOT, capture_output=True, text=True).stderr == ""


def test_an_outdated_reference_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import reference

    shutil.copytree(ROOT / "docs" / "reference", tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(reference, "REFERENCE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    assert reference.main() == 0
    (tmp_path / "config.md").write_text("old")
    assert reference.main() == 1


def test_links_lead_to_files_that_exist() -> None:
    for page in [*PAGES, README, ROOT / "CHANGELOG.md"]:
        for target in re.findall(
            r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        ):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_is_in_the_menu_or_said_not_to_be() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert re.search(rf"[ /]{page.relative_to(ROOT / 'docs').as_posix()}$", menu, re.M), page


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e .[docs]")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text()
        )
        assert [url for url in fetched if "localhost" not in url] == []


def _blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of the blocks that are tried, in order."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), flags=re.S | re.M):
        if language in ("bash", "python"):
            yield language, text


def _commands(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # a variable for this command alone
            words.pop(0)
        if words:
            yield shlex.join(words)


def _run(command: str) -> None:
    """Run `minisora COMMAND`, made small, or `cp FROM TO`, here."""
    if command.startswith("cp "):
        shutil.copy(*shlex.split(command)[1:])
        return
    fitting = [beginning for beginning in QUICK if command.startswith(beginning)]
    arguments = [*shlex.split(command), *(QUICK[max(fitting, key=len)] if fitting else [])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"minisora {shlex.join(arguments)}\n{result.output}\n{result.exception!r}"


def _checked(command: str) -> bool:
    """Whether a command is one of `CHECKED`; then it is parsed, and what it names is looked for."""
    if not any(command.startswith(beginning) for beginning in CHECKED):
        return False
    words = shlex.split(command)
    if words[:2] == ["accelerate", "launch"]:
        at = words.index("-m")
        assert words[at + 1] == "minisora"
        assert (ROOT / words[words.index("--config_file") + 1]).is_file(), command
        _check(words[at + 2 :])
    elif words[0] == "minisora":
        _check(words[1:])
    else:
        for word in words:
            if re.match(r"(scripts|benchmarks|configs|tests)/", word):
                assert (ROOT / word).exists(), f"{command}: there is no {word}"
    return True


def _check(arguments: list[str]) -> None:
    """Parse a command of minisora as it would be, without running it."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments[0]]
        arguments = arguments[1:]
    context = command.make_context("minisora", list(arguments))
    config = context.params.get("config")
    if config:
        find(ROOT / config if (ROOT / config).is_file() else config)
