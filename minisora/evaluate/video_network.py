"""Features of clips from a video network of torchvision, trained on Kinetics-400: what a Frechet video distance reads.

Its weights must be on the disk already: nothing is downloaded, and nothing is unpickled but tensors.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minisora.errors import UserError

NETWORKS = ("r3d_18", "mc3_18", "r2plus1d_18")
_SIDE = 112  # pixels, that these networks were trained at
# Of Kinetics-400 in [0, 1], as torchvision's `VideoClassification` preset has them.
_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


class VideoNetwork:
    """One of `NETWORKS` without its classifier.

    Args:
        name: one of `NETWORKS`, whose file lies in torch's cache, or the path of a file of such weights.

    Raises:
        UserError: it is neither, the file is not there, or it holds other weights.
    """

    def __init__(self, name: str) -> None:
        # Slow to import, and needed by few.
        from torchvision.models import video

        file = weights_file(name)
        try:
            # It warns of pickles that are not torch's own, which are refused next.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                weights = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            # A pickle of anything but tensors, a torn file, a text: torch has no common class for these.
            raise UserError(f"--features {file}: no weights that torch can read safely") from error
        kinds = (name,) if name in NETWORKS else NETWORKS
        network = next(
            (made for made in (_fill(getattr(video, kind), weights) for kind in kinds) if made), None
        )
        if network is None:
            raise UserError(f"--features {file}: these are not the weights of {' or '.join(kinds)}")
        network.fc = nn.Identity()
        self._network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, videos: Tensor) -> Tensor:
        """Features B 512 of videos B 3 T H W in [-1, 1], which are resized to 112 x 112."""
        frames = F.interpolate(
            videos.transpose(1, 2).flatten(0, 1), (_SIDE, _SIDE), mode="bilinear", antialias=True
        )
        pixels = (frames.unflatten(0, (len(videos), -1)).transpose(1, 2) + 1) / 2
        mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (_MEAN, _STD))
        return self._network((pixels - mean) / std)


def weights_file(name: str) -> Path:
    """The file of a network's weights, which need not be read for that.

    Raises:
        UserError: it is not on the disk.
    """
    if name not in NETWORKS:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"--features '{name}' is neither {', '.join(NETWORKS)} nor a file of weights")
        return path
    from torchvision.models import get_model_weights

    url = str(get_model_weights(name).DEFAULT.url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.is_file():
        raise UserError(
            f"--features {name}: its weights are not on this disk, and nothing is downloaded: put {url} into "
            f"{file.parent}, or name the file"
        )
    return file


def _fill(kind: type[nn.Module], weights: object) -> nn.Module | None:
    """A network with these weights; None if they are not its own."""
    network = kind(weights=None)
    try:
        network.load_state_dict(weights)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, AttributeError):
        return None
    return network
