from pathlib import Path

import pytest

from minisora.errors import UserError
from minisora.report.assumptions import gpus, load_preset, presets

ALL = ["as_published", "corrected", "measured", "modern", "modern_distilled"]


def test_every_preset_loads_and_says_where_each_value_comes_from() -> None:
    assert presets() == ALL
    for name in ALL:
        for entry_name, entry in load_preset(name).entries.items():
            assert entry.source, entry_name
            assert entry.about, entry_name
            assert entry.value is not None, entry_name


def test_a_preset_changes_only_what_its_file_states() -> None:
    published, corrected = load_preset("as_published"), load_preset("corrected")
    changed = {n for n in published.entries if published.entries[n] != corrected.entries[n]}
    assert changed == {
        "count.flops_per_mac", "dit.macs_per_step", "dit.round_training_compute", "sora.data_position",
    }  # fmt: skip


def test_the_published_preset_is_certain() -> None:
    uncertain = [n for n, e in load_preset("as_published").entries.items() if not e.is_certain]
    assert uncertain == ["hardware.price"]  # the report prices nothing


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("sora.parms=3", "did you mean 'sora.params'"),
        ("sora.params=-3", "outside"),
        ("sora.params=1e20", "outside"),
        ("sora.params=nan", "not a finite number"),
        ("sora.params=many", "not a number"),
        ("sora.params", "not NAME=VALUE"),
        ("sora.attention=ful", "none of per_frame, full"),
        ("sora.attention=3", "none of per_frame, full"),
        ("hardware.gpu=B100", "none of H100 SXM"),
        ("sora.video_share=1.2", "outside 0 to 1"),
    ],
)
def test_bad_settings_are_named(item: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_preset("measured").set_by_user([item])


def test_a_value_set_by_hand_is_certain_and_says_so() -> None:
    entry = load_preset("measured").set_by_user(["sora.params=30e9"]).entries["sora.params"]
    assert entry.value == 30e9
    assert entry.is_certain
    assert entry.source == "set by hand"


def test_another_gpu_brings_its_peak_power_and_rent_unless_they_are_set_too() -> None:
    changed = load_preset("measured").set_by_user(["hardware.gpu=B200", "hardware.price=1.5"])
    assert changed.entries["hardware.peak"].value == gpus()["B200"].peak == 2.25e15
    assert changed.entries["hardware.power"].value == 1.0
    assert changed.entries["hardware.price"].value == 1.5


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'measured'"):
        load_preset("mesured")
    with pytest.raises(UserError, match="no preset 'gpus'"):
        load_preset("gpus")
    with pytest.raises(UserError, match="no preset"):
        load_preset("missing.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 0\n", "is not a preset"),
        ("title: x\nassumptions: [1]\n", "is not a preset"),
        ("title: x\nassumptions: {sora.params: 3}\n", "is not a preset"),
        (
            "title: x\nassumptions: {sora.params: {value: 2e10, about: size, status: assumed, source: me}}\n",
            "has no assumption",
        ),
        ("base: nothing\n", "no preset 'nothing'"),
    ],
)
def test_yaml_that_is_no_preset_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_preset(str(path))
    assert "\n" not in str(caught.value)
