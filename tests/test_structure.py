"""The architecture, as a test: imports go down only, and the on-disk module paths stay where they are."""

import ast
import re
from collections import Counter
from pathlib import Path

import minisora

PACKAGE = Path(minisora.__file__).parent

# A module may import its own package and what stands in a row above it.
LAYERS: list[set[str]] = [
    {"errors", "files", "screen"},
    {"limits", "memory", "serve", "config_files", "run_metrics"},
    {"section"},
    {"config"},
    {"models", "flow", "data"},
    {"pipelines", "flops"},
    {"evaluate", "training", "weights"},  # of weights, the code file of a model folder
    {"report"},
    {"plan", "scaling", "worlds"},
    {"demo"},
    {"studio", "player"},
    {"cli"},
    {"__main__"},
]
LEARNING = {"models", "flow", "data"}  # see each other, within the limits of the tests below
STANDALONE = {
    "data/video/read_video.py",
    "flops/peaks.py",
    "report/model.py",
}  # import no other part of minisora


def imports(path: Path) -> set[str]:
    """Parts of minisora that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "minisora":
            found.add(node.module.split(".")[1] if "." in node.module else "__init__")
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("minisora.")}
    return found


def layer(part: str) -> int:
    return next(i for i, row in enumerate(LAYERS) if part in row)


def test_imports_go_down_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for other in imports(path) - {parts[0], "__init__"}:
            assert layer(other) < layer(parts[0]) or {other, parts[0]} <= LEARNING, f"{path} imports {other}"


def test_a_flow_objective_never_builds_a_model_and_a_pipeline_never_trains() -> None:
    for path in (PACKAGE / "pipelines").rglob("*.py"):
        assert "training" not in imports(path)
    for path in (PACKAGE / "models").rglob("*.py"):
        assert not imports(path) & {"data", "flow"}, path
    for path in (PACKAGE / "flow").rglob("*.py"):
        assert "models" not in imports(path), path


def test_modules_that_stand_alone_do() -> None:
    for name in STANDALONE:
        assert imports(PACKAGE / name) <= {"errors", name.split("/")[0]}, name


def test_module_paths_on_disk_are_frozen() -> None:
    from minisora.models.dit import VideoDiT
    from minisora.models.text import PretrainedTextEncoder, TextEncoder
    from minisora.models.vae import VideoVAE
    from minisora.pipelines.pipeline import MiniSoraPipeline

    assert [
        c.__module__ for c in (VideoVAE, VideoDiT, TextEncoder, PretrainedTextEncoder, MiniSoraPipeline)
    ] == [
        "minisora.models.vae",
        "minisora.models.dit",
        "minisora.models.text",
        "minisora.models.text",
        "minisora.pipelines.pipeline",
    ]


def test_no_grab_bag_modules_and_nothing_unpickles() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        text = path.read_text()
        assert "import pickle" not in text
        # Weights that torchvision publishes are pickles: of these only tensors are read.
        assert "torch.load(" not in re.sub(r"torch\.load\([^()]*, weights_only=True\)", "", text), path


def test_no_two_modules_have_one_name() -> None:
    """A file is found by its name alone; of `weights`, the code file has the name that diffusers gives it."""
    modules = [path for path in PACKAGE.rglob("*.py") if "weights" not in path.parts]
    names = Counter(path.stem for path in modules if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


# The rooms that may open what training may not: true buttons and states of recorded worlds.
READ_TRUTH = {"worlds/recording.py", "worlds/labels.py"}


def test_only_what_measures_reads_the_truth_of_a_recording() -> None:
    """Rooms that train cannot, as they stand above `worlds`; of `worlds` itself only the parts named here may."""
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        text = path.read_text()
        if name != "worlds/truth.py":
            assert not re.search(r"np\.load\b|numpy\.load\b|NpzFile|from numpy import .*\bload\b", text), name
        if name not in READ_TRUTH | {"worlds/truth.py"}:
            assert not re.search(r"worlds\.truth|worlds import .*\btruth\b", text), f"{name} reads the truth"
    for room in ("data", "models", "flow", "training", "pipelines", "flops"):
        assert layer(room) < layer("worlds")


def test_what_trains_a_world_does_not_see_the_truth_by_way_of_another_module_either() -> None:
    seen, left = set(), ["worlds/world_stages.py"]
    while left:
        name = left.pop()
        seen.add(name)
        for module in re.findall(r"^\s*from minisora\.([\w.]+) import", (PACKAGE / name).read_text(), re.M):
            file = module.replace(".", "/") + ".py"
            if file not in seen and (PACKAGE / file).is_file():
                left.append(file)
    assert "worlds/actions.py" in seen
    assert not seen & (READ_TRUTH | {"worlds/truth.py"})
