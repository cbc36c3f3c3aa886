import pytest
import torch

from minisora.models.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("tiles", "dots", "width", "precision"),
    [
        (False, False, 4096, "fp32"),
        (False, True, 128, "bf16"),
        (False, True, 32, "fp32"),
        (True, True, 128, "bf16"),
        (True, True, 32, "fp32"),
    ],
)
def test_a_cpu_trains_in_what_it_has_units_for(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, dots: bool, width: int, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dots)
    assert choose_precision("auto", CPU, width)[0] == precision


def test_what_is_configured_is_taken() -> None:
    assert choose_precision("fp32", CPU, 4096) == ("fp32", "as configured")
