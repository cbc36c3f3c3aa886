"""The DiT paper's thirteen rows: every one by arithmetic, some by real passes on meta tensors."""

import pytest
import torch

from minisora.config import load
from minisora.flops.count_closed_form import dit_terms, total
from minisora.flops.dit_paper import PUBLISHED, DiTTable, count_row
from minisora.models.build import build_dit


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_shape_by_arithmetic(name: str):
    config = load(f"dit/{name}")
    grid = (1, config.clip.height // 8, config.clip.width // 8)
    macs = total(dit_terms(config, grid, text_width=None, text_tokens=0))
    published, params = PUBLISHED[name]
    rounding = 0.005 / published  # half of the last printed digit
    assert macs / 1e9 == pytest.approx(published, rel=max(0.005, rounding))
    with torch.device("meta"):
        counted = sum(p.numel() for p in build_dit(config, None).parameters())
    assert counted == pytest.approx(params, rel=0.01)


@pytest.mark.slow
def test_rows_by_real_passes():
    rows = [count_row(name) for name in ("s8", "b4", "xl2_512")]
    # Half of the last printed digit, or half a per cent.
    assert all(abs(row.gmacs - row.published_gmacs) <= 0.005 or abs(row.error) <= 0.005 for row in rows)
    assert all(abs(row.params_error) < 0.01 for row in rows)
    assert rows[-1].gmacs == pytest.approx(524.60, rel=0.002)
    assert rows[-1].counts.max_disagreement == 0
    table = DiTTable(rows)
    assert table.table().row_count == 3
    assert table.to_dict()["rows"][2]["gmacs"] == pytest.approx(524.54, abs=0.01)
