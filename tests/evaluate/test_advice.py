"""The verdict on a person's own model: every fault is found alone, and none where there is none."""

import json
from typing import Any

import pytest

from minisora.evaluate.advice import FEW, FEW_TRAINING, LETTERS, Amounts, Facts, conclude
from minisora.evaluate.memorisation import LossCurve, diagnose

LEARNING = diagnose(LossCurve([0.5], [0.3], [1.0]), [1.0] * 8, [1.0] * 8)
MOVES = Amounts([0.04, 0.05, 0.06], [0.05, 0.05, 0.04])
GOOD: dict[str, Any] = {
    "training": 200,
    "held_out": 20,
    "same": 0,
    "captions": 4,
    "moving": (24.0, 13.0),
    "copies": {"": MOVES, "a cat": MOVES},
    "flicker": (0.01, 0.01),
    "finding": LEARNING,
    "overfit": 1.5,
    "judge": (0.95, 0.25),
    "followed": 0.9,
    "samples": {"": MOVES, "a cat": MOVES},
    "frechet": (1.0, 0.5, 3.0),
}
STOPPED = Amounts([0.04, 0.05, 0.06], [0.0, 0.001, 0.0])
WILD = Amounts([0.04, 0.05, 0.06], [0.2, 0.21, 0.2])


def test_a_good_model_is_praised_with_its_numbers() -> None:
    verdict = conclude(Facts(**GOOD))
    assert (verdict.state, verdict.faults, verdict.advice, verdict.not_told) == ("good", [], [], [])
    assert verdict.sentence == (
        "good: 90% of its samples follow their captions (95% of real clips do), they move 0.9 times as much as real "
        "clips, they are no copies of training clips"
    )


def test_smaller_cells_are_advised_where_there_are_smaller_ones() -> None:
    lost = {"moving": (17.5, 13.1)}
    (advice,) = conclude(Facts(**GOOD | lost | {"cell": 8})).advice
    assert advice.endswith("more vae.latent_channels, or a vae.spatial_factor of 4")
    (advice,) = conclude(Facts(**GOOD | lost | {"cell": 4})).advice
    assert advice.endswith("more vae.latent_channels")


@pytest.mark.parametrize(
    ("change", "state", "words", "advice"),
    [
        (
            {"finding": diagnose(LossCurve([0.5], [0.3], [1.0]), [0.1] * 8, [1.0] * 8)},
            "memorising",
            "100% of its samples are copies",
            "more clips (200 now)",
        ),
        (
            {"copies": {"": MOVES, "a cat": Amounts([0.05], [0.0], paired=True)}},
            "the VAE loses what moves",
            "its copies of 'a cat' change in 0.00% of pixels from frame to frame, held-out clips in 5.00%",
            "larger latents",
        ),
        ({"moving": (17.5, 13.1)}, "the VAE loses what moves", "17.5 dB on what moves", "larger latents"),
        (
            {"copies": {"": Amounts([0.05], [0.2], paired=True)}},
            "the VAE makes still things move",
            "20.00% of pixels",
            "larger latents",
        ),
        ({"flicker": (0.01, 0.03)}, "the VAE flickers", "3.0% of the range", "more minutes"),
        (
            {"finding": diagnose(LossCurve([0.5], [0.95], [1.0]), [1.0], [1.0])},
            "stuck",
            "0.95 of what the average clip",
            "train longer",
        ),
        ({"followed": 0.5}, "not following captions", "50% of its samples show", "train longer"),
        (
            {"followed": 0.5, "guidance": 2.0},
            "not following captions",
            "50% of its samples show",
            "more guidance than 2, which costs variety and no training (--guidance 4 of",
        ),
        ({"followed": 0.5, "guidance": 5.0}, "not following captions", "50% of its samples", "train longer"),
        ({"samples": {"": MOVES, "a cat": STOPPED}}, "moving too little", "of 'a cat'", "train longer"),
        (
            {"samples": {"": WILD}},
            "moving too much",
            "its samples change in 20.33% of pixels",
            "train longer",
        ),
        ({"frechet": (4.0, 0.5, 3.0)}, "far from real clips", "8.0 times as far", "train longer"),
    ],
)
def test_each_fault_is_found_alone(change: dict[str, Any], state: str, words: str, advice: str) -> None:
    verdict = conclude(Facts(**GOOD | change))
    assert verdict.faults == [state]
    assert verdict.sentence.startswith(f"{state}: ")
    assert words in verdict.sentence
    assert "\n" not in verdict.sentence
    assert len(verdict.advice) == 1
    assert advice in verdict.advice[0]


def test_a_verdict_names_what_is_true_of_most_captions_and_lists_the_exceptions() -> None:
    captions = {f"caption {number}": MOVES for number in range(6)}
    good = GOOD | {"copies": {"": MOVES, **captions}}
    few = conclude(Facts(**good | {"samples": {"": MOVES, **captions, "caption 3": STOPPED}}))
    figures = "change in 0.03% of pixels from frame to frame, held-out clips in 5.00%"
    assert (few.state, few.faults) == ("good but for 1 of 6 captions", [])
    assert few.exceptions == [f"moving too little: its samples of 'caption 3' {figures}"]
    assert few.sentence == f"{few.state}: {few.exceptions[0]}"
    assert few.advice == ["train longer, --minutes or more steps"]
    # A whole that one caption moves is that caption's.
    wild = conclude(Facts(**good | {"samples": {"": WILD, **captions, "caption 3": WILD}}))
    assert wild.state == "good but for 1 of 6 captions"
    most = dict.fromkeys(captions, WILD) | {"caption 3": MOVES}
    verdict = conclude(Facts(**good | {"samples": {"": WILD, **most}}))
    assert verdict.faults == ["moving too much"]
    assert verdict.sentence.endswith("in 5.00%; so in 5 of 6 captions, not in 'caption 3'")
    # Three stand still, two run wild and one is right: that is not good but for five.
    mixed = dict.fromkeys(list(captions)[:3], STOPPED) | dict.fromkeys(list(captions)[3:5], WILD)
    verdict = conclude(Facts(**good | {"samples": {"": MOVES, **captions, **mixed}}))
    assert verdict.faults == ["moving too little"]
    assert verdict.sentence.endswith("(also: moving too much in 'caption 3', 'caption 4')")
    # What is true of most comes first, exceptions after it.
    both = conclude(
        Facts(
            **good
            | {"followed": 0.2, "samples": {"": MOVES, **captions, "caption 1": WILD, "x" * 90: STOPPED}}
        )
    )
    assert both.state == "not following captions"
    assert both.sentence.endswith(
        f"(also: moving too little in '{'x' * (LETTERS - 1)}…', moving too much in 'caption 1')"
    )


def test_few_captions_of_many_that_a_vae_loses_are_named() -> None:
    lost = Amounts([0.05], [0.0], paired=True)
    captions = {f"caption {number}": MOVES for number in range(9)} | {f"lost {n}": lost for n in range(5)}
    verdict = conclude(
        Facts(**GOOD | {"copies": {"": MOVES, **captions}, "samples": {"": MOVES, **captions}})
    )
    assert verdict.state == "good but for 5 of 14 captions"
    # Those samples have what the VAE has: no second fault.
    assert len(verdict.exceptions) == 1
    assert verdict.exceptions[0].endswith("; also those of 'lost 1', 'lost 2', 'lost 3' and 1 more")


def test_the_worst_comes_first_and_the_others_are_named() -> None:
    verdict = conclude(Facts(**GOOD | {"followed": 0.2, "samples": {"": STOPPED}, "moving": (14.0, 13.0)}))
    assert verdict.faults == ["the VAE loses what moves", "not following captions", "moving too little"]
    assert verdict.sentence.endswith("(also: not following captions, moving too little)")


def test_motion_that_the_vae_loses_is_no_second_fault() -> None:
    lost = {"copies": {"": Amounts([0.05], [0.0], paired=True)}}
    assert conclude(Facts(**GOOD | lost | {"samples": {"": STOPPED}})).faults == ["the VAE loses what moves"]
    both = conclude(Facts(**GOOD | lost | {"samples": {"": WILD}}))
    assert both.faults == ["the VAE loses what moves", "moving too much"]


def test_what_differs_by_chance_is_no_fault() -> None:
    scattered = Amounts([0.001, 0.08, 0.0], [0.0, 0.02, 0.0])
    assert not 0.5 < scattered.ratio < 2
    assert not scattered.differ
    assert not Amounts([0.05], [0.0]).differ
    assert not Amounts([0.0, 0.0], [0.0002, 0.0]).differ
    assert Amounts([0.0, 0.0], [0.02, 0.02]).differ


def test_samples_far_away_are_none_where_still_pictures_are_as_far_or_real_clips() -> None:
    assert conclude(Facts(**GOOD | {"frechet": (4.0, 0.5, 5.0)})).state == "good"
    assert conclude(Facts(**GOOD | {"frechet": (4.0, 1.5, 3.0)})).state == "good"


def test_a_judge_that_does_not_know_real_clips_blames_the_captions_and_not_the_model() -> None:
    verdict = conclude(Facts(**GOOD | {"judge": (0.4, 0.25), "followed": 0.0}))
    assert verdict.state == "good"
    assert "follow" not in verdict.sentence
    assert "captions that say what differs" in verdict.advice[0]
    assert "only 40% are matched" in verdict.not_told[0]
    alike = conclude(Facts(**GOOD | {"judge": None, "followed": None, "captions": 1}))
    assert "all say the same" in alike.advice[0]
    one = conclude(Facts(**GOOD | {"judge": (1.0, 1.0), "followed": 1.0}))
    assert one.not_told == [
        "whether samples follow captions cannot be told: all held-out clips have one caption"
    ]


def test_few_clips_are_said_to_tell_little() -> None:
    verdict = conclude(Facts(**GOOD | {"held_out": FEW - 1, "training": FEW_TRAINING - 1, "frechet": None}))
    assert verdict.state == "cannot be told"
    assert f"{FEW - 1} held-out clips say too little to call it good: " in verdict.sentence
    assert f"below {FEW}" in verdict.not_told[0]
    assert "record more clips: 39 are few" in verdict.advice[0]
    assert not conclude(Facts(**GOOD | {"held_out": FEW, "training": FEW_TRAINING})).advice


def test_clips_held_out_of_nothing_are_no_ground_for_praise_or_blame() -> None:
    copies = diagnose(LossCurve([0.5], [0.3], [1.0]), [0.1] * 8, [0.0] * 8)
    verdict = conclude(Facts(**GOOD | {"same": 20, "finding": copies}))
    assert verdict.state == "cannot be told"
    assert "all of them are equal to training clips" in verdict.not_told[0]


def test_a_loss_that_parts_from_trainings_asks_for_clips_and_not_for_time() -> None:
    verdict = conclude(Facts(**GOOD | {"overfit": 5.0}))
    assert verdict.state == "good"
    (advice,) = verdict.advice
    assert "5.0 times that on training clips: longer training will not help, more clips" in advice
    assert "data.augment" in advice
    assert "data.augment" not in conclude(Facts(**GOOD | {"overfit": 5.0, "views": 3})).advice[0]


UNLEARNED: list[dict[str, Any]] = [
    {"followed": 0.5},
    {"samples": {"": WILD}},
    {"frechet": (4.0, 0.5, 3.0)},
    {"finding": diagnose(LossCurve([0.5], [0.95], [1.0]), [1.0], [1.0])},
]


@pytest.mark.parametrize("fault", UNLEARNED, ids=str)
def test_a_run_that_still_learns_is_to_train_longer(fault: dict[str, Any]) -> None:
    for still in ({"best_at": None}, {"best_at": 0.9}, {"best_at": 1.0, "overfit": 2.0}):
        (advice,) = conclude(Facts(**GOOD | fault | still)).advice
        assert advice.startswith("train longer")


@pytest.mark.parametrize("fault", UNLEARNED, ids=str)
def test_a_run_that_learned_its_clips_by_heart_is_not_to_train_longer(fault: dict[str, Any]) -> None:
    for sign, said in (
        ({"best_at": 0.38}, "its validation loss was least after 38% of its steps: longer training will not"),
        (
            {"overfit": 4.0},
            "its error on held-out clips is 4.0 times that on training clips: longer training",
        ),
        ({"best_at": 0.38, "overfit": 4.0}, "after 38% of its steps and its error on held-out clips is 4.0"),
    ):
        verdict = conclude(Facts(**GOOD | fault | sign))
        (advice,) = verdict.advice
        assert said in advice
        assert "train longer" not in " ".join([advice, verdict.sentence]).lower()
        for what in ("more clips (200 now)", "data.augment", "a smaller model", "fewer minutes"):
            assert what in advice
        if "finding" in fault:
            assert verdict.sentence.startswith("learned by heart: its error on unseen clips is 0.95")


def test_it_goes_into_json() -> None:
    verdict = conclude(Facts(**GOOD | {"moving": None}))
    assert json.loads(json.dumps(verdict.to_dict()))["state"] == "good"
    assert "nothing moves" in verdict.not_told[0]
