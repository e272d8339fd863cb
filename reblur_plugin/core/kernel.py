"""The blur between two images of a scene as one kernel (Figure 1), by Cho and Lee, "Fast motion deblurring" (2009)."""

from __future__ import annotations

import torch
from torch import Tensor

from reblur_plugin.errors import ReblurError

_NOISE = 20  # Cho and Lee: what is below 1/20 of the largest value is noise


class KernelError(ReblurError):
    """Images between which no kernel can be found; the message says why."""


@torch.no_grad()
def residual_kernel(image: Tensor, blurrier: Tensor, size: int = 25, window: int = 256, beta: float = 1e-2) -> Tensor:
    """Return the kernel k with `blurrier` = k * `image` around the centre: one point if they are equally sharp.

    k minimises the squared error on the gradients of both images plus beta |k|^2, solved in the Fourier domain. It is
    then cut to `size`, freed of what is negative or below 1/20 of its largest value, and normalised (D38).

    Args:
        image, blurrier: float `(1, C, H, W)` of one size.
        size: side of the kernel, odd.
        window: side of the square at the centre in which the blur is taken as uniform.
        beta: weight of the regularisation, relative to the mean power of the gradients of `image`.

    Returns:
        Double `(size, size)`, not negative, of sum 1.

    Raises:
        KernelError: if the sizes don't fit or one image has no gradients there.
    """
    if image.shape != blurrier.shape:
        raise KernelError(f"kernel: expected images of one size, got {tuple(image.shape)} and {tuple(blurrier.shape)}")
    side = min(window, *image.shape[-2:])
    if size < 1 or size % 2 == 0 or side < 3 * size:
        raise KernelError(f"kernel: expected an odd size of at most a third of the {side} pixels there, got {size}")
    gradients = [_gradients(_centre(given, side)) * _taper(side, size).to(given.device) for given in (image, blurrier)]
    if not all(given.any() for given in gradients):
        raise KernelError("kernel: an image is flat at its centre; nothing shows its blur")
    solution = least_squares_kernel(gradients[0], gradients[1], beta)
    shifted = torch.fft.fftshift(solution)
    start = side // 2 - size // 2
    kernel = shifted[start : start + size, start : start + size].clone()
    kernel[kernel < kernel.max() / _NOISE] = 0  # and what is negative
    return kernel / kernel.sum()


def least_squares_kernel(gradients: Tensor, blurrier: Tensor, beta: float) -> Tensor:
    """Return argmin of ||b - k * g||^2 + beta p |k|^2 over kernels k of sum 1, by circular convolution, in closed form.

    Args:
        gradients, blurrier: g and b, `(2, H, W)`: horizontal and vertical derivatives.
        beta: relative to p, the mean over all frequencies of g's power.

    Returns:
        k, `(H, W)`, its centre at `[0, 0]`.
    """
    spectrum, target = torch.fft.fft2(gradients), torch.fft.fft2(blurrier)
    power = spectrum.abs().square().sum(dim=0)
    correlation = (spectrum.conj() * target).sum(dim=0)
    transform = correlation / (power + beta * power.mean())
    transform[0, 0] = 1  # the sum, of which gradients tell nothing
    return torch.fft.ifft2(transform).real


def _centre(image: Tensor, side: int) -> Tensor:
    """Return the grey values of the square at the centre, `(side, side)`, in double."""
    height, width = image.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    return image[0, :, top : top + side, left : left + side].double().mean(dim=0)


def _gradients(grey: Tensor) -> Tensor:
    return torch.stack((grey - grey.roll(1, dims=1), grey - grey.roll(1, dims=0)))


def _taper(side: int, size: int) -> Tensor:
    """Return weights `(side, side)` that fall to 0 within `size` pixels of the edge, which has no other side."""
    ramp = torch.arange(side, dtype=torch.float64)
    distance = torch.minimum(ramp, ramp.flip(0)).clamp(max=size) / size
    weights = 0.5 - 0.5 * torch.cos(torch.pi * distance)
    return torch.outer(weights, weights)
