"""Files of benchmarks/ as modules."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """One of them, beside which it finds what it imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def plan_memory() -> ModuleType:
    return benchmark("plan_memory")


@pytest.fixture(scope="session")
def ladder_prediction() -> ModuleType:
    return benchmark("ladder_prediction")
