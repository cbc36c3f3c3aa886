from pathlib import Path

import torch

from minisora.models.captioner import VideoCaptioner

WORDS = ["a", "red", "blue", "circle", "square"]


def test_a_captioner_learns_to_tell_two_clips_apart_and_is_sure_of_it(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = VideoCaptioner(WORDS, in_channels=2, width=32, depth=1, heads=2, max_tokens=8)
    latents = torch.randn(2, 2, 2, 4, 4)
    said = ["a red circle", "a blue square"]
    ids, mask = model.tokenizer(said)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.word_loss(model(latents, ids), ids, mask).backward()
        optimizer.step()
    model.eval()
    told = model.caption(latents)
    assert [caption.text for caption in told] == said
    assert min(caption.confidence for caption in told) > 0.5
    model.save_pretrained(tmp_path)
    again = VideoCaptioner.from_pretrained(tmp_path).eval().caption(latents)
    assert again == told


def test_no_word_is_told_from_a_later_one() -> None:
    model = VideoCaptioner(WORDS, in_channels=2, width=32, depth=1, heads=2, max_tokens=8).eval()
    latents = torch.randn(1, 2, 2, 4, 4)
    ids = torch.tensor([[1, 3, 4, 5]])
    other = torch.tensor([[1, 3, 7, 7]])
    a, b = model(latents, ids), model(latents, other)
    torch.testing.assert_close(a[:, :2], b[:, :2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(a[:, 2:], b[:, 2:])


def test_an_object_is_the_same_wherever_it_is() -> None:
    torch.manual_seed(0)
    model = VideoCaptioner(WORDS, in_channels=2, width=32, blocks=2, depth=1, heads=2, max_tokens=8).eval()
    for block in model.trunk:
        torch.nn.init.normal_(block.time.weight, std=0.1)  # which starts at zero
    latents = torch.zeros(1, 2, 3, 16, 16)
    # Farther from the borders than three convolutions see.
    latents[..., 6:8, 6:8] = torch.randn(1, 2, 3, 2, 2)
    memory = model.encode(latents)
    torch.testing.assert_close(
        model.encode(latents.roll((2, 1), dims=(-2, -1))), memory, atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(model.encode(2 * latents), memory)
