"""LPIPS of Zhang et al. (CVPR 2018), by the authors' package."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from reblur_plugin import checkpoints
from reblur_plugin.errors import MetricError

Backbone = Literal["alex", "vgg", "squeeze"]
_SMALLEST = 32  # below it the deepest layers of the backbones see nothing
_LOGGER = logging.getLogger("basicsr")


def reblur_lpips(
    img: NDArray[np.uint8],
    img2: NDArray[np.uint8],
    crop_border: int = 0,
    net: Backbone = "alex",
    weights: str | None = None,
    better: str = "lower",
) -> float:
    """Return LPIPS v0.1 between two 8-bit images `(H, W, 3)`, BGR as everywhere in BasicSR; 0 is identical.

    Args:
        img, img2: the result and the sharp image.
        crop_border: pixels left out at each edge.
        net: backbone; "alex" is the usual choice and gives the paper's level (D14). Name it beside every number.
        weights: torchvision's weights of the backbone as a file; else the `lpips` package downloads them once.
        better: for BasicSR's record of the best result.

    Raises:
        MetricError: if the backbone is unknown or its weights can't be had.
    """
    return lpips_on(torch.device("cpu"), img, img2, crop_border, net, weights)


def lpips_on(
    device: torch.device,
    img: NDArray[np.uint8],
    img2: NDArray[np.uint8],
    crop_border: int = 0,
    net: str = "alex",
    weights: str | None = None,
) -> float:
    """Return `reblur_lpips`, computed on `device` without TF32."""
    if min(img.shape[:2]) - 2 * crop_border < _SMALLEST:
        _LOGGER.warning("LPIPS: expected at least 32x32 pixels, got %dx%d; left out", *img.shape[1::-1])
        return math.nan
    height, width = img.shape[:2]
    window = np.s_[crop_border : height - crop_border, crop_border : width - crop_border, ::-1]
    pair = (torch.from_numpy(picture[window].transpose(2, 0, 1)[None].copy()).to(device) for picture in (img, img2))
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return float(load_lpips(net, weights).to(device)(*(image.float() / 127.5 - 1 for image in pair)))


@lru_cache(maxsize=2)
def load_lpips(net: str = "alex", weights: str | None = None) -> Any:
    """Return the `lpips` package's network, loaded once; arguments and errors as in `reblur_lpips`."""
    import lpips

    if net not in get_args(Backbone):
        raise MetricError(f"reblur_lpips: net: expected one of {', '.join(get_args(Backbone))}, got {net!r}")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the package prints and is old
        warnings.simplefilter("ignore")
        if weights is None:
            try:
                return lpips.LPIPS(net=net).eval()
            except (OSError, RuntimeError) as error:  # no network; a download that was cut off
                raise MetricError(
                    f"reblur_lpips: the weights of {net!r} can't be downloaded ({error}); give torchvision's file as "
                    "the metric's key weights, or leave the metric out"
                ) from error
        model = lpips.LPIPS(net=net, pnet_rand=True).eval()
    _load_backbone(model.net, Path(weights))
    return model


def _load_backbone(backbone: torch.nn.Module, path: Path) -> None:
    """Put torchvision's weights ("features.0.weight" or "0.weight") into the package's slices ("slice1.0.weight")."""
    given = {name.removeprefix("features."): value for name, value in checkpoints.state_dict(path).items()}
    own = backbone.state_dict()
    names = {name: name.split(".", 1)[1] for name in own}
    for name, source in names.items():
        if source not in given or given[source].shape != own[name].shape:
            raise MetricError(
                f"{path}: expected torchvision's weights of the network that the key net names, but {source} doesn't "
                "fit; give the file of that network"
            )
    backbone.load_state_dict({name: given[source] for name, source in names.items()})
