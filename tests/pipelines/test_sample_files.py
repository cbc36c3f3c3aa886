"""Prompts to files: in batches that fit, and with the latents kept where a video cannot be made or written."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minisora import cli
from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings
from minisora.pipelines.model_folder import load_pipeline
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.sample_files import (
    KeptLatents,
    decode_files,
    latents_file,
    output_files,
    read_latents,
    sample_files,
    write_videos,
)

PROMPTS = ["a red circle moving left", "a blue square", "a green triangle moving up"]


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> MiniSoraPipeline:
    return load_pipeline(tiny_run / "model", device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_files_are_those_of_one_batch(pipeline: MiniSoraPipeline, tmp_path: Path) -> None:
    videos = pipeline(PROMPTS, seed=3, num_inference_steps=2, progress=False).videos
    want = write_videos(tmp_path / "a" / "x.mp4", videos, PROMPTS, pipeline.config.fps)
    files = sample_files(
        pipeline, PROMPTS, tmp_path / "b" / "x.mp4", SampleSettings(seed=3, steps=2, progress=False)
    )
    assert [file.name for file in files] == [file.name for file in want]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_many_prompts_are_sampled_in_batches_that_fit(
    pipeline: MiniSoraPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = pipeline.encode_prompts

    def noted(prompts: list[str], guided: bool):
        sizes.append(len(prompts))
        return real(prompts, guided)

    monkeypatch.setattr(pipeline, "encode_prompts", noted)
    one = pipeline.video_bytes(*pipeline.config.default_size)
    monkeypatch.setattr("minisora.pipelines.sample_files.available_memory", lambda _: 4 * one + 3)
    files = sample_files(
        pipeline, PROMPTS, tmp_path / "x.mp4", SampleSettings(seed=3, steps=2, progress=False)
    )
    assert sizes == [2, 1]
    assert all(file.is_file() for file in files)


def test_a_row_is_of_its_own_seed_whatever_the_batch(pipeline: MiniSoraPipeline) -> None:
    def latents(prompts: list[str], seed: int) -> Tensor:
        return pipeline(
            prompts, seed=seed, num_inference_steps=2, output_type="latent", progress=False
        ).videos

    together = latents(PROMPTS, 3)
    apart = torch.cat([latents([prompt], 3 + row) for row, prompt in enumerate(PROMPTS)])
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("can't allocate memory"), UserError("cannot write x: full")],
    ids=str,
)
def test_latents_are_kept_and_decoded_later(
    pipeline: MiniSoraPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    want = sample_files(pipeline, PROMPTS, tmp_path / "a.mp4", SampleSettings(steps=2, progress=False))

    def fail(*_: object) -> Tensor:
        raise error

    out = tmp_path / "b.mp4"
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "decode", fail)
        with pytest.raises(
            UserError, match=r"sampled latents are kept: minisora sample --latents .*b\.latents"
        ) as e:
            sample_files(pipeline, PROMPTS, out, SampleSettings(steps=2, progress=False))
        assert "\n" not in str(e.value)
        kept = read_latents(latents_file(out))
        with pytest.raises(UserError, match="the file of the latents is as it was"):
            decode_files(pipeline, kept, out)
    assert kept.prompts == PROMPTS
    files = decode_files(pipeline, read_latents(latents_file(out)), out)
    assert [file.name.replace("b", "a", 1) for file in files] == [file.name for file in want]
    assert len(kept.latents) == 3


def test_the_same_call_to_its_end_removes_the_latents_and_another_does_not(
    pipeline: MiniSoraPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Tensor:
        raise UserError("no space left")

    out = tmp_path / "b.mp4"
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "decode", full)
        with pytest.raises(UserError, match="latents are kept"):
            sample_files(pipeline, PROMPTS, out, SampleSettings(steps=1, progress=False))
    sample_files(pipeline, PROMPTS, out, SampleSettings(seed=9, steps=1, progress=False))
    assert latents_file(out).is_file()
    sample_files(pipeline, PROMPTS, out, SampleSettings(steps=1, progress=False))
    assert not latents_file(out).exists()


def test_a_failure_between_two_videos_keeps_the_second(
    pipeline: MiniSoraPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        if "1" in path.name:
            raise UserError("cannot write it: no space left")

    monkeypatch.setattr("minisora.pipelines.sample_files.write_video", full)
    with pytest.raises(UserError, match="no space left; the sampled latents are kept"):
        sample_files(pipeline, PROMPTS, tmp_path / "x.mp4", SampleSettings(steps=2, progress=False))
    kept = read_latents(latents_file(tmp_path / "x.mp4"))
    assert (kept.prompts, kept.first, kept.count) == (PROMPTS[1:], 1, 3)
    monkeypatch.undo()
    # Under the names that they would have had: the first, which is whole, stays.
    before = (tmp_path / "x-0.gif").read_bytes()
    files = decode_files(pipeline, kept, tmp_path / "x.mp4")
    assert [file.name for file in files] == [file.name for file in output_files(tmp_path / "x.mp4", 3)]
    assert (tmp_path / "x-0.gif").read_bytes() == before
    assert all((tmp_path / f"x-{number}.mp4").is_file() for number in (1, 2))


def test_latents_of_another_vae_are_refused(pipeline: MiniSoraPipeline, tmp_path: Path) -> None:
    shape = pipeline.latent_shape(*pipeline.config.default_size)
    kept = KeptLatents(pipeline.noise(1, shape, 0), PROMPTS[:1], vae="another")
    with pytest.raises(UserError, match="of another VAE than this model's: pass the --model they are of"):
        decode_files(pipeline, kept, tmp_path / "x.mp4")


def test_another_error_is_no_memory_error(
    pipeline: MiniSoraPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(pipeline, "decode", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        sample_files(pipeline, PROMPTS, tmp_path / "x.mp4", SampleSettings(steps=2, progress=False))


def test_a_file_that_holds_no_latents(pipeline: MiniSoraPipeline, tmp_path: Path) -> None:
    for content in (b"", b"not safetensors at all"):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="holds no latents of minisora sample"):
            read_latents(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="holds no latents of minisora sample"):
        read_latents(tmp_path / "missing.safetensors")


def test_a_size_beyond_the_memory_is_refused_before_any_work(
    pipeline: MiniSoraPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "encode_prompts", lambda *_: pytest.fail("work was done"))
    with pytest.raises(UserError, match=r"1 x 1048573 frames of 512x512 are .* GiB of pixels, and .* free"):
        pipeline("a red circle", num_frames=(1 << 20) - 3, height=512, width=512)
    monkeypatch.setattr("minisora.pipelines.pipeline.available_memory", lambda _: 1 << 20)
    with pytest.raises(UserError, match="are 1.1 MiB of pixels, and 1.0 MiB of memory are free"):
        pipeline(["a red circle"] * 10, num_frames=9, height=32, width=32)


@pytest.mark.parametrize("guidance", [float("nan"), float("inf"), -1.0, 1e30])
def test_wild_guidance_is_refused(pipeline: MiniSoraPipeline, guidance: float) -> None:
    with pytest.raises(UserError, match="guidance = .* must be at least 0 and at most 1000"):
        pipeline("a red circle", guidance_scale=guidance)


def test_what_is_not_finite_is_no_video(pipeline: MiniSoraPipeline) -> None:
    noise = pipeline.noise(1, pipeline.latent_shape(*pipeline.config.default_size), 0)
    noise[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="left the range of numbers"):
        pipeline("a red circle", latents=noise, num_inference_steps=1, progress=False)


def test_the_command_decodes_kept_latents(
    pipeline: MiniSoraPipeline,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def do(*arguments: str) -> tuple[int, str]:
        model = ["-m", str(tiny_run / "model"), "-o", str(tmp_path / "x.mp4")]
        monkeypatch.setattr(sys, "argv", ["minisora", "sample", *model, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().err

    def fail(*_: object) -> Tensor:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(MiniSoraPipeline, "decode", fail)
        code, err = do("-p", "a red circle", "--steps", "1")
    assert code == 2
    assert err.splitlines()[-1].startswith("error: out of memory (")
    kept = str(tmp_path / "x.latents.safetensors")
    assert f"minisora sample --latents {kept}, with the same --model and --out, makes the video" in err
    assert do("--latents", kept, "--steps", "2") == (
        2,
        "error: --steps would do nothing beside --latents: leave one of them out\n",
    )
    assert do("--latents", kept, "--guidance-interval", "0", "0.5")[0] == 2
    assert do("--latents", kept) == (0, "")
    assert (tmp_path / "x.mp4").is_file()
    assert do()[1].startswith("error: no prompt: say what to show")
