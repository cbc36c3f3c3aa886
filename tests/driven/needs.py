"""What some tests need and not every machine has; without it they are skipped, and say what is missing."""

import importlib.util

import pytest
from chromium import find_chromium

NEEDS_CHROMIUM = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium")
NEEDS_SERVER = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn: pip install 'minisora[studio]'"
)
