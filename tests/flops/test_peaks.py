"""Datasheet peaks: dense, found by the names drivers give, and none for a card that is not listed."""

import subprocess
import sys

import pytest

from minisora.flops.peaks import CARDS, datasheet_peak, find_card


@pytest.mark.parametrize(
    ("device", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2"),
    ],
)
def test_names_of_the_driver(device: str, card: str):
    found = find_card(device)
    assert found is not None
    assert found.name == card


@pytest.mark.parametrize(
    "device",
    [
        "",
        "cpu",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA GB200",
        "NVIDIA A10G",
        "NVIDIA A100X",
        "NVIDIA L40",
        "NVIDIA H200 NVL",
        "NVIDIA H20",
        "AMD Instinct MI300X",
    ],
)
def test_an_unknown_card_has_no_peak(device: str):
    assert find_card(device) is None
    assert datasheet_peak(device, "bfloat16") is None


def test_peaks_are_dense():
    assert datasheet_peak("NVIDIA H100 80GB HBM3", "bfloat16") == pytest.approx(989.4e12)
    assert datasheet_peak("NVIDIA H100 80GB HBM3", "float8_e4m3fn") == pytest.approx(1978.9e12)
    assert datasheet_peak("NVIDIA H100 80GB HBM3", "int4") is None
    for card in CARDS:
        assert card.tflops["float16"] > card.tflops.get("float32", 0)
        assert card.source
        if "float8" in card.tflops:
            assert card.tflops["float8"] == pytest.approx(2 * card.tflops["bfloat16"], rel=0.02)


def test_it_imports_no_torch():
    code = "import sys, minisora.flops.peaks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
