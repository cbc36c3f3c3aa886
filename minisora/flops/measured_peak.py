"""The most FLOP/s that this machine reaches in a number format: every way to multiply that torch has here is tried.

A peak taken from one library is passed by another: on some CPUs oneDNN's products run at more than twice the speed of
the BLAS behind `torch.mm`, and a VAE's convolutions, which oneDNN computes, then pass a peak of `torch.mm` by half.

    torch.mm                      BLAS: MKL, OpenBLAS, cuBLAS
    linear                        of torch.nn.functional, with a bias
    batched product               torch.bmm, as attention without a fused kernel
    oneDNN linear                 torch.ops.mkldnn._linear_pointwise, which torch.compile calls on a CPU
    oneDNN linear, packed         the same with the weight in oneDNN's own layout
    convolution, as counted       k x k, channels last: padding counts as work, as in every counter here
    convolution, as computed      the same run without the taps that lie on padding, which a library may skip

Counted passes are held against the peak, so what is *as counted* takes part in it. A library or an operator that this
build lacks is left out. Heats come first, a few runs of every shape, then a final of the fastest.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minisora.flops.clock import measure
from minisora.flops.peaks import MeasuredPeak, Reached
from minisora.models.precision import convolve_as_products

COUNTED, COMPUTED = "convolution, as counted", "convolution, as computed"
# Shapes of the final, the share of the time that the heats may take, and what one shape may take of that time.
_FINALISTS = 3
_HEATS, _ONE_HEAT = 0.6, 0.15
# Runs of a heat: one to warm up, two timed.
_RUNS_OF_A_HEAT = 3


@dataclass(frozen=True)
class Product:
    """A product to be timed.

    Args:
        way: name of the library's way.
        shape: in words.
        flops: of a run, as counted.
        prepare: makes the operands, and gives what multiplies them.
        computed_share: of `flops`, what does not lie on padding.
    """

    way: str
    shape: str
    flops: int
    prepare: Callable[[], Callable[[], Any]]
    computed_share: float = 1.0


@lru_cache(maxsize=16)
def measure_peak(device: str, dtype: torch.dtype, budget: float = 2.0) -> MeasuredPeak:
    """The best FLOP/s of every way to multiply, by the fastest run of each. Remembered for the process.

    Args:
        device: "cpu" or "cuda".
        dtype: of the operands.
        budget: seconds for all of it, about.
    """
    convolve_as_products()
    started = time.perf_counter()
    rates: dict[Product, float] = {}
    by_way: dict[str, float] = {}
    with torch.no_grad():
        for product in products(device, dtype):
            # One product at least, however slow the format is on this machine.
            if rates and time.perf_counter() - started > _HEATS * budget:
                break
            expected = product.flops / by_way.get(product.way, max(by_way.values(), default=float("inf")))
            if _RUNS_OF_A_HEAT * expected > _ONE_HEAT * budget:
                continue
            try:
                seconds = measure(product.prepare(), device, warmup=1, runs=_RUNS_OF_A_HEAT - 1).minimum
            # Not in this build, not in this format, or too large for this card.
            except RuntimeError:
                continue
            rates[product] = product.flops / max(seconds, 1e-9)
            by_way[product.way] = max(by_way.get(product.way, 0.0), rates[product])
        finalists = sorted(rates, key=lambda product: rates[product], reverse=True)[:_FINALISTS]
        for place, product in enumerate(finalists):
            left = budget - (time.perf_counter() - started)
            runs = int(left / (len(finalists) - place) * rates[product] / product.flops)
            if runs > 1:
                seconds = measure(product.prepare(), device, warmup=1, runs=min(50, runs)).minimum
                rates[product] = max(rates[product], product.flops / max(seconds, 1e-9))
    return _best(rates)


def _best(rates: dict[Product, float]) -> MeasuredPeak:
    """The best shape of each way; a padded convolution stands under two names."""
    ways: dict[str, Reached] = {}
    for product, rate in sorted(rates.items(), key=lambda pair: pair[1]):
        ways[product.way] = Reached(product.shape, rate)
    computed = [
        (rate * product.computed_share, product) for product, rate in rates.items() if product.way == COUNTED
    ]
    if computed:
        rate, product = max(computed, key=lambda pair: pair[0])
        ways[COMPUTED] = Reached(product.shape, rate)
    return MeasuredPeak(ways)


def products(device: str, dtype: torch.dtype) -> Iterator[Product]:
    """What is tried, in order of the rounds: every way at one shape after another."""
    on_card = torch.device(device).type == "cuda"
    small, middle, large = (4096, 8192, 16384) if on_card else (512, 1024, 2048)
    # Rows of the input, width, width of the output: a square, an MLP's widening and narrowing, other squares.
    shapes = [(small, small, small), (middle, middle, middle), (2 * small, small, 2 * small)]
    shapes += [(small // 2, small // 2, small // 2), (large, middle, large), (large, large, large)]
    scale = 8 if on_card else 1
    # Clips, channels, height, width; the kernel; padding.
    convolutions = [
        ((8, 64, 32, 32), (3, 3), 1),
        ((4, 128, 32, 32), (3, 3), 1),
        ((2, 128, 10, 1024), (3, 1), 0),
    ]
    convolutions += [((8, 128, 16, 16), (3, 3), 1), ((4, 256, 32, 32), (1, 1), 0)]
    for i in range(max(len(shapes), len(convolutions))):
        if i < len(shapes):
            yield from _matrix_products(shapes[i], device, dtype)
        if i < len(convolutions):
            size, kernel, padding = convolutions[i]
            yield _convolution((scale * size[0], scale * size[1], *size[2:]), kernel, padding, device, dtype)


def _matrix_products(shape: tuple[int, int, int], device: str, dtype: torch.dtype) -> Iterator[Product]:
    """(M, K, N): M K by K N, in every way."""
    m, k, n = shape
    words, flops = f"{m} x {k} x {n}", 2 * m * k * n

    def numbers(*size: int) -> Tensor:
        return torch.randn(*size, device=device, dtype=dtype)

    def plain() -> Callable[[], Any]:
        a, b, out = numbers(m, k), numbers(k, n), numbers(m, n)
        return lambda: torch.mm(a, b, out=out)

    def linear() -> Callable[[], Any]:
        x, weight, bias = numbers(m, k), numbers(n, k), numbers(n)
        return lambda: F.linear(x, weight, bias)

    def batched() -> Callable[[], Any]:
        a, b = numbers(4, m // 2, k), numbers(4, k, n // 2)
        return lambda: torch.bmm(a, b)

    yield Product("torch.mm", words, flops, plain)
    one_dnn = _one_dnn_linear(device)
    if one_dnn is not None:

        def direct() -> Callable[[], Any]:
            x, weight, bias = numbers(m, k), numbers(n, k), numbers(n)
            return lambda: one_dnn(x, weight, bias, "none", [], "")

        def packed() -> Callable[[], Any]:
            x, weight, bias = numbers(m, k), numbers(n, k), numbers(n)
            own_layout = torch.ops.mkldnn._reorder_linear_weight(weight, m)
            return lambda: one_dnn(x, own_layout, bias, "none", [], "")

        yield Product("oneDNN linear", words, flops, direct)
        yield Product("oneDNN linear, packed", words, flops, packed)
    yield Product("linear", words, flops, linear)
    yield Product("batched product", f"4 of {m // 2} x {k} x {n // 2}", flops, batched)


def _one_dnn_linear(device: str) -> Callable[..., Tensor] | None:
    """oneDNN's own product, or None where this build of torch has none."""
    if torch.device(device).type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _convolution(
    size: tuple[int, ...], kernel: tuple[int, int], padding: int, device: str, dtype: torch.dtype
) -> Product:
    """As many channels out as in; `size` is B C H W."""
    batch, channels, height, width = size
    taps = kernel[0] * kernel[1]
    places = (height - kernel[0] + 1 + 2 * padding) * (width - kernel[1] + 1 + 2 * padding)

    def prepare() -> Callable[[], Any]:
        x = torch.randn(size, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, *kernel, device=device, dtype=dtype)
        weight = weight.to(memory_format=torch.channels_last)
        bias = torch.zeros(channels, device=device, dtype=dtype)
        return lambda: F.conv2d(x, weight, bias, padding=padding)

    # Along an axis of n cells that is padded by one, 2 of its 3 n taps lie outside.
    inside = (1 - 2 / (3 * height)) * (1 - 2 / (3 * width)) if padding else 1.0
    words = f"{' x '.join(map(str, size))}, kernel {kernel[0]} x {kernel[1]}"
    return Product(COUNTED, words, 2 * batch * places * taps * channels * channels, prepare, inside)
