"""A folder of videos is judged; whatever is not is named with the reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.evaluate.score import Rate
from minisora.evaluate.video_folder import evaluate_videos

Draw = Callable[..., Tensor]
CAPTIONS = ["a red square moving left", "a small blue circle moving right behind a gray wall"]


@pytest.fixture
def folder(draw: Draw, tmp_path: Path) -> Path:
    """Two videos of different sizes, both as captioned."""
    write_video(tmp_path / "0.mp4", draw(CAPTIONS[0]), 8)
    write_video(tmp_path / "1.mp4", draw(CAPTIONS[1], height=48, width=80), 12.5)
    caption(tmp_path, "0.mp4", "1.mp4")
    return tmp_path


def caption(folder: Path, *names: str, captions: list[str] = CAPTIONS) -> None:
    rows = [f"{name},{text}\n" for name, text in zip(names, captions, strict=True)]
    (folder / "metadata.csv").write_text("file_name,text\n" + "".join(rows))


def test_videos_of_any_size_and_rate_are_judged_whole(folder: Path) -> None:
    found = evaluate_videos(folder, 4)
    assert found.files == ["0.mp4", "1.mp4"]
    assert (found.score.all_right, found.score.permanence) == (Rate(2, 2), Rate(1, 1))
    assert (found.skipped, found.reconstructed) == ([], None)
    assert found.rendered.all_right.share == 1
    assert found.to_dict()["clips"][1]["file"] == "1.mp4"


def test_a_video_of_something_else_fails(folder: Path) -> None:
    caption(folder, "1.mp4", "0.mp4")
    found = evaluate_videos(folder, 4)
    assert found.score.all_right == Rate(0, 2)
    assert [failure.caption for failure in found.failures] == [
        f"1.mp4: {CAPTIONS[0]}",
        f"0.mp4: {CAPTIONS[1]}",
    ]
    assert "color blue" in found.failures[0].wrong


def test_what_is_not_judged_is_named_with_the_reason(folder: Path, draw: Draw) -> None:
    (folder / "broken.mp4").write_bytes(b"not a video")
    write_video(folder / "extra.mp4", draw(CAPTIONS[0])[:, :3], 8)
    caption(
        folder,
        *("0.mp4", "1.mp4", "gone.mp4", "broken.mp4"),
        captions=[CAPTIONS[0], "a cat on a sofa", CAPTIONS[0], CAPTIONS[0]],
    )
    steps: list[tuple[float, int]] = []
    found = evaluate_videos(folder, 4, lambda done, total: steps.append((done, total)))
    assert found.files == ["0.mp4"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for line, (name, why) in zip(
        found.skipped,
        [
            ("1.mp4", "'a cat on a sofa' is not of the shapes world"),
            ("gone.mp4", "no such file"),
            ("broken.mp4", "cannot be decoded"),
            ("extra.mp4", "no row in metadata.csv"),
        ],
        strict=True,
    ):
        assert line.startswith(name)
        assert why in line


def test_a_folder_with_nothing_to_judge_is_refused(folder: Path, tmp_path: Path) -> None:
    caption(folder, "0.mp4", "1.mp4", captions=["a cat", "a dog"])
    with pytest.raises(UserError, match=r"no video of .* can be judged \(2 skipped; 0\.mp4: caption 'a cat'"):
        evaluate_videos(folder, 4)
    (folder / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(UserError, match=r"2 skipped; 0\.mp4: it has no row"):
        evaluate_videos(folder, 4)
    (folder / "metadata.csv").unlink()
    with pytest.raises(UserError, match=r"no metadata\.csv: write one with the columns file_name,text"):
        evaluate_videos(folder, 4)
    with pytest.raises(UserError, match="is not a folder"):
        evaluate_videos(tmp_path / "nowhere")


def test_a_video_too_large_to_judge_is_skipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minisora.evaluate import video_folder as module

    monkeypatch.setattr(module, "_MOST_PIXELS", 17 * 64 * 64 - 1)
    found = evaluate_videos(folder, 4)
    assert found.files == ["1.mp4"]
    assert "0.mp4: 17 frames of 64x64 are too much" in found.skipped[0]


def test_of_a_large_video_only_small_pictures_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minisora.evaluate import video_folder as module

    monkeypatch.setattr(module, "_MOST_SHOWN", 40)
    found = evaluate_videos(folder, 4)
    assert {tuple(clip.video.shape) for clip in found.worst} == {(3, 9, 40, 40), (3, 9, 24, 40)}
