"""How motion blur is formed: what a moving camera sees during the exposure is averaged in linear light.

GOPRO was made this way (Nah et al., CVPR 2017): consecutive frames of a fast camera, its response curve taken for
x^(1/2.2). Here the frames come from a film, or from one photograph and a simulated path of the camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from reblur_plugin.errors import ReblurError

Frame = NDArray[np.uint8]
GAMMA = 2.2
_ROUNDING_64, _ROUNDING_32 = 1e-9, 1e-3  # of grey levels computed in float64 and, summed in linear light, in float32


class BlurError(ReblurError):
    """Frames or a path that no blur can be made of."""


def average_frames(frames: Iterable[Frame], gamma: float = GAMMA) -> Frame:
    """Return (mean x^gamma)^(1/gamma) over 8-bit frames `(H, W, C)`, cut to whole numbers as GOPRO's files are.

    gamma 2.2 gives the kind `blur_gamma`, 1 the kind `blur`.

    Raises:
        BlurError: if there is no frame or sizes differ.
    """
    to_light = np.arange(256, dtype=np.float64) ** gamma
    total: NDArray[np.float64] | None = None
    count = 0
    for frame in frames:
        if total is not None and frame.shape != total.shape:
            raise BlurError(f"average_frames: expected frames of one size, got {total.shape} and {frame.shape}")
        total = to_light[frame] if total is None else total + to_light[frame]
        count += 1
    if total is None:
        raise BlurError("average_frames: expected at least one frame, got none")
    return _cut((total / count) ** (1 / gamma), _ROUNDING_64)


@dataclass(frozen=True)
class CameraPath:
    """Poses of the camera during one exposure; the middle one is the sharp image's.

    Attributes:
        shifts: `(poses, 2)`, x and y in pixels.
        angles: `(poses,)`, rotation about the image's centre in radians.
    """

    shifts: NDArray[np.float64]
    angles: NDArray[np.float64]


def random_path(
    rng: np.random.Generator,
    poses: int,
    length: float,
    direction: float = 0.0,
    spread: float = np.pi,
    rotation: float = 0.0,
) -> CameraPath:
    """Return a smooth random path: the camera moves, speeds up, bends and turns as a hand does.

    Args:
        rng: source of randomness.
        poses: sub-frames, odd, so that there is a middle one.
        length: distance between the first and the last pose in pixels.
        direction, spread: it goes along direction +- spread, in radians; spread pi is any direction.
        rotation: largest angle between the middle and an end, in radians.

    Raises:
        BlurError: if `poses` is even or below 3.
    """
    if poses < 3 or poses % 2 == 0:
        raise BlurError(f"random_path: poses: expected an odd number from 3, got {poses}")
    time = np.linspace(-0.5, 0.5, poses)
    heading = direction + rng.uniform(-spread, spread)
    along, across = (np.array([np.cos(turn), np.sin(turn)]) for turn in (heading, heading + np.pi / 2))
    speeding, bend = rng.uniform(-0.5, 0.5, size=2)
    shifts = length * (np.outer(time + speeding * (time**2 - 0.25), along) + np.outer(bend * time**2, across))
    shifts -= shifts[poses // 2]  # the sharp image lies in the middle of the exposure
    time[poses // 2] = 0  # not 1e-17
    return CameraPath(shifts, 2 * time * rng.uniform(-rotation, rotation))


def shake(photograph: Frame, path: CameraPath, gamma: float = GAMMA) -> Frame:
    """Return an 8-bit photograph `(H, W, C)` as a camera on `path` would have taken it, aligned with the sharp one.

    Each pose is the photograph in linear light, moved with bilinear interpolation; edges are mirrored, so crop the
    path's length off if they matter.
    """
    height, width = photograph.shape[:2]
    light = ((np.arange(256, dtype=np.float64) / 255) ** gamma).astype(np.float32)[photograph]
    total = np.zeros_like(light)
    for (x, y), angle in zip(path.shifts, path.angles, strict=True):
        pose = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), np.degrees(angle), 1.0)
        pose[:, 2] += (x, y)
        total += cv2.warpAffine(light, pose, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _cut(255 * np.clip(total / len(path.angles), 0, 1).astype(np.float64) ** (1 / gamma), _ROUNDING_32)


def _cut(pixels: NDArray[np.float64], rounding: float) -> Frame:
    """Return the whole part; a value just below a whole number by the arithmetic's `rounding` counts as that number."""
    return np.floor(pixels + rounding).astype(np.uint8)
