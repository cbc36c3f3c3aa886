import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minisora.studio.job_store import JobStore


def request(seed: int = 0, prompt: str = "a red circle moving left", steps: int = 3) -> dict[str, Any]:
    return {
        "model": "toy", "prompt": prompt, "size": [9, 64, 64], "steps": steps, "guidance": 3.0, "seed": seed,
        "scheduler": "euler", "mode": "sample",
    }  # fmt: skip


@pytest.fixture
def asked() -> Any:
    """Makes a request: (seed, prompt, steps)."""
    return request


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = JobStore(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The module of the engine without torch."""
    spec = importlib.util.spec_from_file_location("fake_engine", Path(__file__).with_name("fake_engine.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_engine"] = module
    spec.loader.exec_module(module)
    return module
