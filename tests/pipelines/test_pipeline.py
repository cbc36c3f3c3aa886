"""Sampling: saved and loaded, seeded, guided in one pass, any size; incomplete folders are named."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from minisora.errors import UserError
from minisora.flow.schedules import make_scheduler, set_sigmas
from minisora.models.text import PretrainedTextEncoder
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.sample_files import write_videos

PROMPT = "a red circle moving left"


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


def test_sampling_is_seeded_and_each_prompt_has_its_own_noise(pipeline: MiniSoraPipeline) -> None:
    a = pipeline(PROMPT, seed=3, progress=False).videos
    assert a.shape == (1, 3, 9, 32, 32)
    assert a.abs().max() <= 1
    assert torch.equal(pipeline(PROMPT, seed=3, progress=False).videos, a)
    assert not torch.equal(pipeline(PROMPT, seed=4, progress=False).videos, a)
    both = pipeline([PROMPT, PROMPT], seed=2, progress=False).videos
    torch.testing.assert_close(both[1:], a, atol=1e-4, rtol=1e-4)  # video i starts from seed + i


def test_any_size_and_one_frame(pipeline: MiniSoraPipeline) -> None:
    assert pipeline(PROMPT, num_frames=1, progress=False).videos.shape == (1, 3, 1, 32, 32)
    assert pipeline(PROMPT, num_frames=13, height=48, width=16, progress=False).videos.shape == (
        1,
        3,
        13,
        48,
        16,
    )
    with pytest.raises(UserError, match="10 frames do not fit .* use 9 or 13"):
        pipeline(PROMPT, num_frames=10)
    with pytest.raises(UserError, match="width 40 does not fit .* use 32 or 48"):
        pipeline(PROMPT, width=40)


def test_guidance_runs_both_conditions_in_one_pass(pipeline: MiniSoraPipeline) -> None:
    batches: list[int] = []
    hook = pipeline.dit.register_forward_pre_hook(lambda _, args: batches.append(args[0].shape[0]))
    pipeline(PROMPT, num_inference_steps=2, guidance_scale=3.0, progress=False)
    pipeline(PROMPT, num_inference_steps=2, guidance_scale=1.0, progress=False)
    hook.remove()
    assert batches == [2, 2, 1, 1]


def test_guidance_is_left_out_outside_its_interval(pipeline: MiniSoraPipeline) -> None:
    seen: list[tuple[int, float]] = []
    hook = pipeline.dit.register_forward_pre_hook(
        lambda _, args: seen.append((args[0].shape[0], float(args[1][0])))
    )
    pipeline(PROMPT, num_inference_steps=8, guidance_interval=(0.3, 0.8), progress=False)
    hook.remove()
    assert {rows for rows, _ in seen} == {1, 2}
    assert all((rows == 2) == (0.3 <= sigma <= 0.8) for rows, sigma in seen)
    with pytest.raises(UserError, match=r"guidance_interval = 0\.8 0\.3 must be two noise levels"):
        pipeline(PROMPT, guidance_interval=(0.8, 0.3))


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_schedulers_follow_a_straight_path_to_its_end(name: str, shift: float) -> None:
    """With the true velocity of a straight path any scheduler must land on the data."""
    scheduler = make_scheduler(name, shift)
    data, noise = torch.randn(2, 1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    x = noise
    sigmas = set_sigmas(scheduler, 8, shift, torch.device("cpu"))
    off = 0.001 if name == "dpm++" else 0.0  # diffusers' DPM-Solver++ takes pure noise for shifted 0.999
    assert sigmas[0] == pytest.approx(1.0 - off / shift, abs=1e-6)
    for timestep, sigma in zip(scheduler.timesteps, sigmas, strict=True):
        torch.testing.assert_close(x, (1 - sigma) * data + sigma * noise, atol=2e-3 + 4 * off, rtol=2e-3)
        x = scheduler.step(noise - data, timestep, x, return_dict=False)[0]
    torch.testing.assert_close(x, data, atol=1e-4 + 4 * off, rtol=1e-4)


def test_an_unknown_prompt_and_scheduler_are_refused(pipeline: MiniSoraPipeline) -> None:
    with pytest.raises(UserError, match="knows no word"):
        pipeline("zebra xylophone")
    with pytest.raises(UserError, match="unknown scheduler 'ddim': use one of euler, heun, dpm\\+\\+"):
        make_scheduler("ddim")


def test_decoding_in_chunks_changes_nothing(pipeline: MiniSoraPipeline) -> None:
    whole = pipeline(PROMPT, num_frames=17, progress=False).videos
    torch.testing.assert_close(
        pipeline(PROMPT, num_frames=17, decode_chunk=1, progress=False).videos, whole, atol=1e-4, rtol=1e-4
    )


def test_nothing_in_a_model_folder_is_a_pickle(tiny_run: Path) -> None:
    names = [p.name for p in (tiny_run / "model").rglob("*") if p.is_file()]
    assert sum(name.endswith(".safetensors") for name in names) == 3
    others = {name for name in names if not name.endswith((".safetensors", ".json"))}
    assert others == {"pipeline.py", "SHA256SUMS"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda m: (m / "model_index.json").unlink(), "it has no model_index.json"),
        (lambda m: (m / "model_index.json").write_text("{"), "is not JSON"),
        (lambda m: shutil.rmtree(m / "vae"), "vae/config.json is missing"),
        (lambda m: next((m / "dit").glob("*.safetensors")).unlink(), "dit has no .safetensors weights"),
        (
            lambda m: next((m / "dit").glob("*.safetensors")).write_bytes(b"short"),
            "dit/diffusion_pytorch_model.safetensors is not as SHA256SUMS says",
        ),
        (
            lambda m: (
                (m / "SHA256SUMS").unlink(),
                next((m / "dit").glob("*.safetensors")).write_bytes(b"short"),
            ),
            "cannot be read",
        ),
        (
            lambda m: (m / "model_index.json").write_text(
                json.dumps({"_class_name": "StableDiffusionPipeline"})
            ),
            "holds a StableDiffusionPipeline",
        ),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_missing(
    damage, said: str, tiny_run: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_run / "model", model)
    damage(model)
    with pytest.raises(UserError, match=said) as caught:
        load_pipeline(model)
    assert "\n" not in str(caught.value)


def test_a_pretrained_text_encoder_keeps_its_limit_of_tokens(
    pipeline: MiniSoraPipeline, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    config = transformers.T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    transformers.T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(tmp_path / "t5")
    text = PretrainedTextEncoder(str(tmp_path / "t5"), max_tokens=226)
    MiniSoraPipeline(pipeline.vae, pipeline.dit, text, pipeline.scheduler).save_pretrained(tmp_path / "model")
    loaded = load_pipeline(tmp_path / "model", device="cpu").text_encoder
    assert isinstance(loaded, PretrainedTextEncoder)
    assert loaded.config.max_tokens == 226


def test_written_files_are_the_same_bytes_each_time(pipeline: MiniSoraPipeline, tmp_path: Path) -> None:
    video = pipeline(PROMPT, progress=False).videos
    first = write_videos(tmp_path / "a" / "x.mp4", video, [PROMPT], 8)
    second = write_videos(tmp_path / "b" / "x.mp4", video, [PROMPT], 8)
    assert [p.name for p in first] == ["x.mp4", "x.gif", "x.png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with pytest.raises(UserError, match=r"must end in \.mp4"):
        write_videos(tmp_path / "x.avi", video, [PROMPT], 8)


def test_every_further_noise_is_another_and_each_row_has_its_own() -> None:
    shape = (2, 3, 4, 4)
    draws = [draw for draw, _ in zip(MiniSoraPipeline.noises(3, shape, seed=7), range(4), strict=False)]
    assert torch.equal(draws[0], MiniSoraPipeline.noise(3, shape, 7))
    beside = MiniSoraPipeline.noises(1, shape, seed=8)
    for draw in draws:
        assert torch.equal(draw[1:2], next(beside))
    rows = torch.cat(draws).flatten(1)
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 0.5


def test_a_prompt_that_is_cut_is_said(pipeline: MiniSoraPipeline, caplog: pytest.LogCaptureFixture) -> None:
    pipeline.encode_prompts([PROMPT], True)
    assert not caplog.messages
    pipeline([PROMPT, "a red circle " * 8 + "moving left"], num_inference_steps=1, progress=False)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("1 of 2 prompts is cut after '...")
    assert caplog.messages[0].endswith(
        "a red'; shorten what you ask for, or train with text.max_tokens=27 (it is 24)"
    )
