"""PSNR and SSIM against values known by hand."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.evaluate.fidelity import psnr, ssim


def test_psnr_of_a_known_error_per_clip() -> None:
    video = torch.zeros(3, 3, 2, 8, 8)
    other = video + torch.tensor([0.2, 0.02, 0.0]).view(3, 1, 1, 1, 1)
    values = psnr(video, other)  # 10 log10(2^2 / 0.2^2) = 20
    torch.testing.assert_close(values[:2], torch.tensor([20.0, 40.0]))
    assert values[2] == torch.inf


def test_ssim_is_one_of_equal_clips_and_falls_with_blur(blurred: Callable[[Tensor, float], Tensor]) -> None:
    pytest.importorskip("torchmetrics", reason="the dev extra has it")
    video = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(ssim(video, video), torch.ones(2))
    mixed = torch.cat([video[:1], blurred(video[1:], 1.0)])
    values = ssim(video, mixed)
    assert values[0] == pytest.approx(1)
    assert values[1] < 0.8


def test_errors_name_the_sizes_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"\(1, 3, 2, 8, 8\) and \(1, 3, 3, 8, 8\)"):
        psnr(torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 3, 8, 8))
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(UserError, match="pip install"):
        ssim(torch.zeros(1, 3, 2, 16, 16), torch.zeros(1, 3, 2, 16, 16))
