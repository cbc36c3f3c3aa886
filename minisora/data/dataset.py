"""Open the data set that a config asks for."""

import logging
from typing import Literal

from minisora.config import Config
from minisora.data.clip import ClipDataset
from minisora.data.folder.folder_dataset import FolderDataset, split_files
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import scan_folder
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.screen import plain

_log = logging.getLogger(__name__)


def open_dataset(
    config: Config, split: Literal["train", "validation"], record: DataRecord | None = None
) -> ClipDataset:
    """The clips of `config.data`, cut and resampled to `config.clip`.

    With the `record` of a stage they are those that the stage was begun on, and damaged ones are left out.

    What a folder drops or pads is logged as a warning when its training part is opened; the data set's
    `report` has it file by file.

    Raises:
        UserError: the source is not there, or nothing in it is usable; the message says why.
    """
    data, clip = config.data, config.clip
    if data.source == "shapes":
        num_clips = data.num_clips if split == "train" else data.num_validation_clips
        size = (clip.frames, clip.height, clip.width)
        return ShapesWorld(num_clips, config.seed, *size, clip.fps, split, data.wall_share)
    if (
        data.path is None
    ):  # a Config cannot be made so; said again for whoever builds one by `model_construct`
        raise UserError(f"data.source={data.source} needs data.path (or --data DIR)")
    if data.source == "torchvision":
        from minisora.data.torchvision_sets import open_torchvision

        limit = data.num_validation_clips
        return open_torchvision(data.dataset, data.path, clip, split, limit, data.short_clips, record)
    scan = scan_folder(data.path, clip, data.short_clips, data.require_captions)
    if record is not None:
        scan = record.pin(scan, clip, tell=split == "train")
    if split == "train" and (scan.dropped or scan.notes or scan.remarks()):
        _log.warning("%s", plain(scan.summary()))
    return FolderDataset(
        data.path,
        clip,
        data.short_clips,
        data.require_captions,
        files=split_files(scan, split, data.num_validation_clips),
        scan=scan,
        max_clips=data.num_validation_clips if split == "validation" else None,
        spread=True,
        record=record,
    )


def bucket_configs(config: Config) -> list[Config]:
    """The config of each further size of clips: that clip size, and its share of the clips."""
    return [
        config.replace(
            **{
                "clip.frames": bucket.frames,
                "clip.height": bucket.height,
                "clip.width": bucket.width,
                "data.num_clips": max(1, round(config.data.num_clips * bucket.share)),
                "data.buckets": (),
            }
        )
        for bucket in config.data.buckets
    ]
