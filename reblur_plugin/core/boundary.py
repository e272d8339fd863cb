"""The one place that calls a network, ours or anybody's, and says which of its outputs is the image.

A network gets a copy of its input, since it may work in place. What it returns may be an image, several scales of it,
or a list, a tuple or a dictionary with more. Where several outputs could be the image, the network says which one it
is by an attribute: `network.image_output = "last"` ("first", "last", an index or a key of a dictionary).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin.errors import ReblurError

Network = Callable[[Tensor], Any]
_OVERSHOOT = 0.5  # beyond [0, 1]: what noise, resampling and networks add; images in -1..1 or 0..255 reach further
_WHICH = "say which one is the image: image_output of the network, in an option file deblurred_output, names it"


class NetworkError(ReblurError):
    """A network whose output can't be used; the message says what it returned."""


def image_from(network: Network, image: Tensor, name: str = "") -> Tensor:
    """Return the image that a network makes of an image `(B, C, H, W)`, in that shape; of several scales the finest.

    Gradient flows as the network lets it. `name` stands for the network in messages.

    Raises:
        NetworkError: if it returns none, an image of another shape, or several that could be meant.
    """
    made = finest(output_from(network, image, name))
    if made.shape != image.shape:
        raise NetworkError(
            f"{name or _name(network)}: expected an image of its input's shape {tuple(image.shape)}, "
            f"got {tuple(made.shape)}; use a network that keeps the size"
        )
    return made


def output_from(network: Network, image: Tensor, name: str = "") -> Tensor | list[Tensor]:
    """Return all scales that a network makes of an image, as L_1 wants them (D6); `finest` finds the image in them.

    Where there is a single one, it is that tensor.

    Raises:
        NetworkError: as `image_from` does, but for shapes.
    """
    choice = getattr(bare(network) if isinstance(network, nn.Module) else network, "image_output", None)
    return images_of(call(network, image), image, choice, name or _name(network))


def call(network: Callable[[Tensor], Any], image: Tensor) -> Any:
    """Return whatever a network makes of a copy of `image`, which stays as it is."""
    return network(image.clone())


@torch.no_grad()
def evaluated(network: nn.Module, image: Tensor, name: str = "") -> Tensor:
    """Return `image_from` in eval mode, without gradient."""
    with eval_mode(network):
        return image_from(network, image, name)


def finest(output: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the full-resolution image of an output: the tensor itself, or the largest of several scales.

    Networks disagree about the order (SRN's original: coarse to fine, DeepDeblur: fine to coarse), so size decides.
    L_Reblur, the perceptual losses and adaptation see this one alone (D6).
    """
    if isinstance(output, Tensor):
        return output
    if not output:
        raise NetworkError("network output: expected an image or several scales of it, got none")
    return max(output, key=_area)


def images_of(output: Any, like: Tensor, choice: str | int | None, name: str) -> Tensor | list[Tensor]:
    """Return the images in what a network returned, the chosen one where `finest` finds it.

    Args:
        output: an image `(B, C, h, w)`, or a list, a tuple or a dictionary.
        like: an image whose B and C the network's have.
        choice: which one is the image: "first" or "last" (of those of full size), an index, a key; None: the largest.
        name: of the network in messages.

    Raises:
        NetworkError: if there is no image, or several could be meant.
    """
    if isinstance(output, Tensor) and choice in (None, "first", "last", 0):
        return output
    entries = _entries(output, name)
    images = {key: value for key, value in entries.items() if _is_image(value, like)}
    got = f"got {_listed(entries)}"
    if not images:
        raise NetworkError(f"{name}: expected an image for an input of shape {tuple(like.shape)}, {got}")
    largest = max(map(_area, images.values()))
    full = [key for key, image in images.items() if _area(image) == largest]
    if choice in ("first", "last"):
        chosen = full[0 if choice == "first" else -1]
    elif choice is not None:
        if choice not in images:
            raise NetworkError(f"{name}: image_output: expected an output that is an image, not {choice!r}; {got}")
        chosen = choice
    elif len(images) < len(entries) or len(full) > 1:
        raise NetworkError(f"{name}: expected one image or several scales of it, {got}; {_WHICH}")
    else:
        chosen = full[0]
    if len(images) < len(entries) or len(images) == 1:
        return images[chosen]
    others = [image for key, image in images.items() if key != chosen]
    return list(images.values()) if finest(list(images.values())) is images[chosen] else [images[chosen], *others]


def check_range(name: str, image: Tensor) -> None:
    """Refuse images whose values can't mean [0, 1]; what noise or resampling adds to that range is let through.

    Raises:
        ReblurError: with the range seen.
    """
    low, high = (float(value) for value in image.detach().aminmax())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise ReblurError(
            f"{name}: expected values in [0, 1], got {low:.4g} to {high:.4g}; "
            "divide 8-bit values by 255, bring -1..1 to [0, 1] by (x + 1) / 2"
        )


def choose_output(network: nn.Module, choice: str | int | None) -> None:
    """Let a network say which of its outputs is the image; None leaves what its class says.

    Raises:
        NetworkError: if `choice` is neither "first", "last", an index from 0 nor a key.
    """
    if choice is None:
        return
    if not isinstance(choice, (str, int)) or isinstance(choice, bool):
        raise NetworkError(f"image_output: expected first, last, a number from 0 or a name, got {choice!r}")
    network.__dict__["image_output"] = choice  # a plain attribute, which copies of the network keep


def bare(network: nn.Module) -> nn.Module:
    """Return the network inside a data-parallel wrapper, whose backward pass would wait for the other processes."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return network.module if isinstance(network, wrappers) else network


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Run `network` in eval mode; every submodule's own mode is restored afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _entries(output: Any, name: str) -> dict[Any, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, Tensor):
        return {0: output}
    if isinstance(output, Sequence) and not isinstance(output, str):
        return dict(enumerate(output))
    raise NetworkError(f"{name}: expected an image (torch.Tensor) or several, got {type(output).__name__}")


def _is_image(value: Any, like: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[:2] == like.shape[:2] and _area(value) > 0


def _area(image: Tensor) -> int:
    return image.shape[-2] * image.shape[-1]


def _listed(entries: Mapping[Any, Any]) -> str:
    def shown(value: Any) -> Any:
        return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__

    return ", ".join(f"{key}: {shown(value)}" for key, value in entries.items()) or "nothing"


def _name(network: Any) -> str:
    return type(bare(network)).__name__ if isinstance(network, nn.Module) else "network"
