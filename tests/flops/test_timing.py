"""Times of passes and shares of peaks. No assertion depends on how fast the machine is."""

import json
from dataclasses import replace

import pytest
import torch

from minisora.config import Config, override
from minisora.errors import UserError
from minisora.flops.clock import measure
from minisora.flops.peaks import Utilisation
from minisora.flops.timing import known_peak, time_config


def test_utilisation_over_one_hundred_percent_says_so():
    fine = Utilisation(flops=90, seconds=1.0, datasheet_peak=None, measured_peak=100.0)
    assert fine.mfu_measured == 0.9
    assert fine.mfu_datasheet is None
    assert fine.warning() is None
    wrong = replace(fine, flops=104, datasheet_peak=102.0)
    assert "datasheet peak and the measured peak" in (wrong.warning() or "")
    assert "warning" in wrong.to_dict()


def test_measure_runs_as_often_as_told():
    calls = []
    timing = measure(lambda: calls.append(1), "cpu", warmup=3, runs=4)
    assert len(calls) == 7
    assert timing.runs == 4
    assert timing.minimum <= timing.median <= timing.maximum
    assert timing.memory_bytes > 0
    with pytest.raises(UserError, match="takes no time"):
        measure(lambda: None, "meta")


def test_peaks_on_a_cpu():
    assert known_peak("cpu", torch.float32) is None


def test_a_config_is_timed_in_every_row():
    tiny = [
        "dit.width=32",
        "dit.depth=1",
        "dit.heads=2",
        "vae.widths=[8,8]",
        "clip.frames=5",
        "clip.height=32",
    ]
    report = time_config(override(Config(), tiny), batch=2, runs=2)
    names = [row.name for row in report.rows]
    assert names[:3] == ["DiT forward", "DiT forward and backward", "DiT train step"]
    assert names[3:] == ["sampling step (2 passes)", "VAE encode", "VAE decode"]
    assert all(row.use.flops > 0 and row.use.mfu_measured > 0 for row in report.rows)
    assert report.rows[2].use.flops == report.rows[1].use.flops > 2.5 * report.rows[0].use.flops
    assert report.table().row_count == 6
    peak = report.rows[0].use.measured_peak
    assert report.to_dict()["measured_peak_way"] == report.peak.words
    assert peak == report.to_dict()["measured_peak_ways"][report.peak.best]["flops_per_second"]
    json.dumps(report.to_dict())
