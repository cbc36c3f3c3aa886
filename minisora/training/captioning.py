"""Re-captioning: a captioner trained on the labelled part of a set writes captions for the rest.

RUN/captioner/checkpoints/    of its training
   /captioner/model/          the captioner
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from minisora.config import AugmentConfig, Config, load
from minisora.config_files import of_run
from minisora.data.batches import DiTBatch, LatentBatches, LatentSource
from minisora.data.clip_views import ClipViews, move
from minisora.data.clips import ClipDataset, to_float
from minisora.data.dataset import open_dataset
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.folder.metadata import write_metadata
from minisora.data.latent_cache import fingerprint
from minisora.errors import UserError
from minisora.limits import check_number, seed_after
from minisora.models.captioner import Caption, VideoCaptioner
from minisora.models.tokenizer import build_vocabulary
from minisora.screen import Progress, say
from minisora.training.latents import build_latents
from minisora.training.loop import StageResult
from minisora.training.run_stage import run_stage
from minisora.training.stages import load_vae, open_record, read_model, settle_text, warn_of_cuts
from minisora.training.tasks import Task, validation_sums

_BATCH = 64
# Standard deviation of what is added to latents, which have 1.
_NOISE = 0.2
# Of the captioner.
_WIDTH = 96
# Of the grid: how far clips are moved.
_SHIFT = 0.25


def labelled(captions: Sequence[str], first: int) -> list[int]:
    """The indices of the clips that have a caption, of the first so many; raises UserError where there is none."""
    indices = captioned(captions[:first])
    if not indices:
        raise UserError(f"none of the first {first} clips has a caption: label some, or raise the share")
    return indices


def captioned(captions: Sequence[str]) -> list[int]:
    """The indices of the captions that are not empty."""
    return [index for index, caption in enumerate(captions) if caption.strip()]


def hold_out(indices: Sequence[int]) -> tuple[list[int], list[int]]:
    """Labelled indices to train on, and a tenth of them (at least one) to validate on.

    For a set of which few clips have a caption, and none of those held out. A single one is for both.
    """
    count = max(1, len(indices) // 10)
    return list(indices[:-count] or indices), list(indices[-count:])


def shift_cells(latents: Tensor, noise: Tensor) -> Tensor:
    """Every clip moved by whole cells, at most a quarter of the grid to each side, its border repeated.

    Captions say nothing of where things are, so they stay true.

    Args:
        latents: B Z T' H' W'.
        noise: standard normal numbers of the same shape, from which the shifts are taken.
    """
    uniform = torch.special.ndtr(noise[:, 0, 0, 0, :2])  # B 2
    far = (_SHIFT * torch.tensor(latents.shape[-2:], device=latents.device)).long()  # 2
    by = (uniform * (2 * far + 1)).floor().long().clamp(max=2 * far) - far  # B 2
    return move(latents, by)


class CaptionTask(Task):
    """Predict every word of a caption from the latents and the words before it."""

    name = "caption"
    block = "TransformerDecoderLayer"
    model: VideoCaptioner
    source: LatentBatches

    def __init__(self, config: Config, train: LatentSource, validation: LatentSource):
        self.config, self.settings = config, config.train_caption
        plain = config.flow.replace(caption_dropout=0.0, known_share=0.0)
        self.source = LatentBatches(train, plain, config.seed)
        self._validation = LatentBatches(validation, plain, seed_after(config.seed, 1))
        self._num_validation = len(validation)
        self.model = self.fresh_model()

    def fresh_model(self) -> VideoCaptioner:
        """The captioner before training; its words are those of the labelled captions."""
        text = self.config.text
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return VideoCaptioner(
                build_vocabulary(self.source.all_captions, text.max_vocabulary, text.tokenizer_version),
                self.config.vae.latent_channels,
                _WIDTH,
                max_tokens=text.tokens,
                tokenizer_version=text.tokenizer_version,
            )

    def loss(self, model: nn.Module, batch: DiTBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of the words, of clips moved and noised: a few labels must not be learnt by heart."""
        moved = shift_cells(batch.latents, batch.noise) + _NOISE * batch.noise
        return self._loss(model, replace(batch, latents=moved)), {}

    def _loss(self, model: nn.Module, batch: DiTBatch) -> Tensor:
        ids, mask = (t.to(batch.latents.device) for t in self.model.tokenizer(batch.captions))
        return self.model.word_loss(model(batch.latents, ids), ids, mask)

    @torch.no_grad()
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Cross-entropy on unseen clips."""
        device = next(model.parameters()).device

        def summed_loss(part: range, batch: DiTBatch) -> Tensor:
            return self._loss(model, batch) * len(part)

        clips = self._num_validation
        return validation_sums(self._validation, clips, rank, world_size, device, summed_loss)

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        return {"captions": f"{len(self.source.source)}, {len(self.model.tokenizer.ids)} words"}


def train_captioner(
    config: Config, run: Path, console: Console, share: float = 1.0, out: Path | None = None
) -> StageResult:
    """Train a captioner on the first `share` of a run's training clips and write RUN/captioner/model.

    Args:
        config: the run's.
        run: a run with a trained VAE; the labelled clips are coded at several places into its latent cache.
        console: where progress is shown.
        share: of the clips whose captions may be looked at, in (0, 1].
        out: the captioner's folder; None: RUN/captioner.

    Raises:
        UserError: there is no VAE, no caption, or the share is out of its range.
    """
    check_number("share", share, 0.0, 1.0, above=True)
    out = out or run / "captioner"
    vae = load_vae(run / "vae" / "model")
    record = open_record(out)
    # Whatever sizes the DiT takes, captions are for files of every shape; and views it has of its own.
    of_all = config.replace(**{"data.buckets_by_shape": False, "data.augment": {}})
    train, validation = (open_dataset(of_all, split, record) for split in ("train", "validation"))
    first = max(1, round(share * len(train)))
    indices = labelled(train.captions(), first)
    held_out: ClipDataset = validation
    unseen_indices = captioned(validation.captions())
    if not unseen_indices:
        held_out = train
        indices, unseen_indices = hold_out(indices)
    views = -(-config.train_caption.views_in_all // len(indices))
    # Farther by whole cells: `shift_cells`.
    reach = config.vae.spatial_factor - 1
    seen = ClipViews(train, indices, AugmentConfig(views=views, shift=reach), config.seed)
    unseen = ClipViews(held_out, unseen_indices, AugmentConfig())
    config = settle_text(config, [*train.captions(), *held_out.captions()], out)
    inputs = f"{seen.fingerprint()}-{fingerprint(vae)}"

    def make_task(accelerator: Accelerator) -> CaptionTask:
        vae.to(accelerator.device)
        sources = [
            build_latents(config, vae, dataset, run / "cache", console, name, accelerator)
            for name, dataset in (("labelled", seen), ("validation", unseen))
        ]
        task = CaptionTask(config, sources[0], sources[1])
        if accelerator.is_main_process:
            captions = train.captions()
            warn_of_cuts(console, task.model.tokenizer, [captions[index] for index in indices])
        return task

    def finish(task: CaptionTask, weights: dict[str, Tensor]) -> VideoCaptioner:
        captioner = task.fresh_model()
        captioner.load_state_dict(weights)
        return captioner

    return run_stage(
        config,
        config.train_caption,
        out,
        console,
        title="Captioner",
        width=_WIDTH,
        inputs=inputs,
        begin=record.keep,
        make_task=make_task,
        model=out / "model",
        finish=finish,
    )


def write_captions(
    captioner: VideoCaptioner, source: LatentSource, progress: Progress | None = None
) -> list[Caption]:
    """A caption and its confidence for every clip of a source."""
    captioner.eval()
    captions: list[Caption] = []
    for start in range(0, len(source), _BATCH):
        indices = range(start, min(start + _BATCH, len(source)))
        captions += captioner.caption(source.latents(indices).to(captioner.device))
        if progress is not None:
            progress(len(captions), len(source))
    return captions


def label_folder(
    run: Path, data: Path, out: Path, console: Console, min_confidence: float = 0.0
) -> tuple[int, int]:
    """Caption the files of a folder that have none, and write all captions to a CSV that a data set reads.

    Args:
        run: a run with a captioner (`train_captioner`).
        data: folder of videos; files with a caption keep it.
        out: the CSV: file_name, text, and the confidence of what the captioner wrote.
        console: where progress is shown.
        min_confidence: files below it are left out.

    Files that turn out to be damaged are named and get no row.

    Returns:
        How many files were captioned, and how many left out for their confidence.

    Raises:
        UserError: there is no captioner, nothing usable in the folder, or the CSV cannot be written.
    """
    check_number("min_confidence", min_confidence, 0.0, 1.0)
    folder = run / "captioner" / "model"
    again = f"run 'minisora caption train --run {run}'"
    captioner = read_model(VideoCaptioner, folder, again, f"no captioner in {folder}: {again} first")
    vae = load_vae(run / "vae" / "model")
    config = load(of_run(run))
    dataset = FolderDataset(data, config.clip, "pad", require_captions=False, fit=config.data.fit)
    files = list(zip(dataset.names(), dataset.captions(), strict=True))
    own = {name for name, caption in files if caption}
    best: dict[str, Caption] = {}
    damaged: dict[str, str] = {}
    with console.status("captioning") as status:
        for index, (name, caption) in enumerate(files):
            status.update(f"captioning {index + 1}/{len(files)}")
            if caption:
                best[name] = Caption(caption, 1.0)
                continue
            try:
                clip = dataset.clips([index])
            except UserError as error:
                # The others are captioned all the same.
                damaged[name] = str(error)
                continue
            written = captioner.caption(vae.to_latents(to_float(clip)))[0]
            if name not in best or written.confidence > best[name].confidence:
                best[name] = written
    for name, why in damaged.items():
        rest = "captioned by its other clips" if name in best else "left out"
        say(console, f"{why}: {rest}")
    if not best:
        raise UserError(
            f"none of the {len(damaged)} files of {data} can be decoded: copy or export them again"
        )
    rows = [
        (name, each.text, "" if name in own else f"{each.confidence:.3f}")
        for name, each in best.items()
        if name in own or each.confidence >= min_confidence
    ]
    write_metadata(out, ("file_name", "text", "confidence"), rows)
    return len(rows) - len(own), len(best) - len(rows)
