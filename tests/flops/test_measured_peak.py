"""The measured peak: every way to multiply is tried and counts what it computes. Nothing hangs on speed."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from minisora.flops import measured_peak
from minisora.flops.count_torch import count_forward
from minisora.flops.measured_peak import COMPUTED, COUNTED, Product, measure_peak, products
from minisora.flops.peaks import MeasuredPeak, Reached, Timing


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_way_is_tried_and_every_product_has_the_flops_that_are_counted(device: str) -> None:
    tried = set()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for product in products(device, torch.float32):
            tried.add(product.way)
            # oneDNN's own operators run on real CPU tensors only: the next test looks at what they compute.
            if "oneDNN" not in product.way:
                assert count_forward(product.prepare()) == product.flops, product.shape
    own = {"oneDNN linear", "oneDNN linear, packed"} if device == "cpu" else set()
    assert tried == {"torch.mm", "linear", "batched product", COUNTED} | own


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_one_dnns_own_products_are_the_product() -> None:
    for product in measured_peak._matrix_products((16, 32, 8), "cpu", torch.float32):
        if "oneDNN" in product.way:
            assert product.prepare()().shape == (16, 8)
            assert product.flops == 2 * 16 * 32 * 8


def test_what_lies_on_padding_is_counted_and_not_computed() -> None:
    padded, plain = (
        measured_peak._convolution((1, 1, 4, 5), (3, 3), padding, "meta", torch.float32) for padding in (1, 0)
    )
    x, weight = torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 3)
    inside = torch.nn.functional.conv2d(x, weight, padding=1).sum()  # taps that meet a cell
    assert padded.flops * padded.computed_share == pytest.approx(2 * float(inside))
    assert padded.flops == 2 * 9 * 4 * 5
    assert plain.computed_share == 1
    assert plain.flops == 2 * 9 * 2 * 3


def test_the_best_way_and_shape_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product takes as long as it is told to; one raises, as an operator that a build lacks does."""
    seconds = {"slow": 4.0, "fast": 1.0, "fast, larger": 1.5, "padded": 2.0}
    made = {name: Product(name.split(",")[0], name, 8, lambda name=name: name) for name in ("slow", "fast")}
    made["fast, larger"] = Product("fast", "fast, larger", 16, lambda: "fast, larger")
    made["padded"] = Product(COUNTED, "padded", 8, lambda: "padded", computed_share=0.5)
    made["absent"] = Product("absent", "absent", 8, lambda: "absent")

    def measure(name: str, *_: object, **__: object) -> Timing:
        if name not in seconds:
            raise NotImplementedError(name)
        return Timing(seconds[name], seconds[name], seconds[name], 1, 0)

    monkeypatch.setattr(measured_peak, "products", lambda *_: iter(made.values()))
    monkeypatch.setattr(measured_peak, "measure", measure)
    measure_peak.cache_clear()
    peak = measure_peak("cpu", torch.float32, 1000.0)
    measure_peak.cache_clear()
    rates = {name: way.flops_per_second for name, way in peak.ways.items()}
    assert rates == pytest.approx({"slow": 2, "fast": 16 / 1.5, COUNTED: 4, COMPUTED: 2})
    assert (peak.flops_per_second, peak.words) == (pytest.approx(16 / 1.5), "fast, fast, larger")


def test_a_peak_of_two_measurements_is_the_better_way_by_way() -> None:
    one = MeasuredPeak({"a": Reached("1", 1.0), "b": Reached("1", 5.0)})
    two = MeasuredPeak({"a": Reached("2", 2.0), "b": Reached("2", 4.0), "c": Reached("2", 3.0)})
    merged = one.merge(two)
    assert merged == two.merge(one)
    assert merged == replace(
        one, ways={"a": Reached("2", 2.0), "b": Reached("1", 5.0), "c": Reached("2", 3.0)}
    )
    assert merged.words == "b, 1"


def test_a_real_machine_reaches_something_in_a_moment() -> None:
    peak = measure_peak("cpu", torch.float32, 0.1)
    assert peak.flops_per_second > 1e7
    assert peak.flops_per_second == max(way.flops_per_second for way in peak.ways.values())
