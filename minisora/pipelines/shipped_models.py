"""The models that came with minisora, by name. Torch is not needed to find one."""

from pathlib import Path

# A folder each.
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"


def shipped() -> list[str]:
    """Names of the models that came with minisora."""
    return sorted(index.parent.name for index in WEIGHTS.glob("*/model_index.json"))


def find_model(folder: str | Path) -> Path:
    """A folder, or else the shipped model of that name."""
    path = Path(folder)
    return WEIGHTS / path if not path.exists() and str(path) in shipped() else path
