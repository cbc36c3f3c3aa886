"""A classifier of captions on latents: right on clips that differ, at chance on noise, silent where nothing differs."""

import pytest
import torch

from minisora.errors import UserError
from minisora.evaluate.caption_following import CaptionJudge

CAPTIONS = ["a red ball", "a blue ball", "a red box"]


def clips(captions: list[str], seed: int, *, shown: bool = True) -> torch.Tensor:
    """Latents N 4 3 8 8 in which a word, where shown, stands in a channel of its own."""
    latents = torch.randn(len(captions), 4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    for latent, caption in zip(latents, captions, strict=True):
        if shown:
            latent[0] += 2.0 * ("red" in caption)
            latent[1] += 2.0 * ("box" in caption)
    return latents


def test_unseen_clips_follow_their_captions_and_swapped_ones_do_not() -> None:
    captions = CAPTIONS * 10
    judge = CaptionJudge.learn(clips(captions, 0), captions)
    assert judge is not None
    assert judge.words == ("ball", "blue", "box", "red")
    assert judge.chance() == pytest.approx(1 / 3)
    assert all(judge.follows(clips(captions, 1), captions))
    swapped = captions[1:] + captions[:1]
    assert not any(judge.follows(clips(captions, 1), swapped))


def test_on_noise_it_is_at_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisora.evaluate.word_network._STEPS", 100)
    captions = CAPTIONS * 40
    judge = CaptionJudge.learn(clips(captions, 0, shown=False), captions)
    assert judge is not None
    right = judge.follows(clips(captions, 1, shown=False), captions)
    assert 0.15 < sum(right) / len(right) < 0.55


def test_things_are_told_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisora.evaluate.word_network._STEPS", 250)

    def flying(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        latents = 0.3 * torch.randn(90, 4, 3, 12, 12, generator=generator)
        upright = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]).float()
        for row, latent in enumerate(latents):
            shape = upright if row % 2 else torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).float()
            for frame in range(3):
                y, x = torch.randint(0, 9, (2,), generator=generator).tolist()
                latent[0, frame, y : y + 3, x : x + 3] += 3 * shape
        return latents

    captions = ["a times", "a plus"] * 45
    judge = CaptionJudge.learn(flying(0), captions)
    assert judge is not None
    assert judge.by_network.any()
    assert sum(judge.follows(flying(1), captions)) > 80
    swapped = captions[1:] + captions[:1]
    assert sum(judge.follows(flying(1), swapped)) < 10


def test_the_network_is_chosen_by_files_and_words_that_it_can_be_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minisora.evaluate.word_network._STEPS", 20)
    captions = [*CAPTIONS * 22, "a red zebra", "a blue zebra"]
    latents = clips(captions, 0, shown=False)
    # A scene that is known by heart tells nothing of another: clips of a file are on one side.
    for start in range(0, len(latents), 4):
        latents[start : start + 4] = latents[start].clone()
    files = [str(place // 4) for place in range(len(captions))]
    judge = CaptionJudge.learn(latents, captions, files=files)
    assert judge is not None
    assert not judge.by_network[judge.words.index("zebra")]


def test_one_caption_for_all_tells_nothing() -> None:
    assert CaptionJudge.learn(clips(["a red ball"] * 6, 0), ["a red ball"] * 6) is None


def test_every_clip_needs_a_caption() -> None:
    with pytest.raises(UserError, match="3 clips and 2 captions"):
        CaptionJudge.learn(clips(CAPTIONS, 0), CAPTIONS[:2])


def test_of_very_many_words_those_that_halve_the_clips_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisora.evaluate.caption_following._WORDS", 2)
    captions = CAPTIONS * 4 + ["a red box"] * 3 + ["a tiny red box"] * 2
    judge = CaptionJudge.learn(clips(captions, 0), captions)
    assert judge is not None
    assert judge.words == ("ball", "box")


def test_chance_is_that_of_the_best_guess() -> None:
    judge = CaptionJudge.learn(clips(CAPTIONS * 3, 0), CAPTIONS * 3)
    assert judge is not None
    assert judge.chance(["a red ball"] * 3 + ["a red box"]) == pytest.approx(3 / 4)
    assert judge.chance(CAPTIONS) == pytest.approx(1 / 3)
