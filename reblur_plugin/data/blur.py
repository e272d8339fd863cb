"""How motion blur is formed: what a moving camera sees during the exposure is averaged in linear light.

GOPRO was made this way (Nah et al., CVPR 2017): consecutive frames of a fast camera, its response curve taken for
x^(1/2.2). Here the frames come from a film, or from one photograph and a simulated path of the camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from reblur_plugin.errors import ReblurError

Frame = NDArray[np.uint8]
GAMMA = 2.2
_WHITE = 250  # levels from here on may have been cut by the camera
_MOST_BETWEEN = 15
_LEAST_SIDE = 12  # for optical flow
_ROUNDING_64, _ROUNDING_32 = 1e-9, 1e-3  # of grey levels computed in float64 and, summed in linear light, in float32


class BlurError(ReblurError):
    """Frames or a path that no blur can be made of."""


def average_frames(frames: Iterable[Frame], gamma: float = GAMMA, highlights: float = 1.0) -> Frame:
    """Return (mean x^gamma)^(1/gamma) over 8-bit frames `(H, W, C)`, cut to whole numbers as GOPRO's files are.

    gamma 2.2 gives the kind `blur_gamma`, 1 the kind `blur`. What is white in a frame may have been brighter in truth:
    its light counts `highlights` times, and the mean is cut at white, so that lights leave streaks.

    Raises:
        BlurError: if there is no frame or sizes differ.
    """
    to_light = _light(gamma, highlights)
    total: NDArray[np.float64] | None = None
    count = 0
    for frame in frames:
        if total is not None and frame.shape != total.shape:
            raise BlurError(f"average_frames: expected frames of one size, got {total.shape} and {frame.shape}")
        total = to_light[frame] if total is None else total + to_light[frame]
        count += 1
    if total is None:
        raise BlurError("average_frames: expected at least one frame, got none")
    return _cut(np.minimum((total / count) ** (1 / gamma), 255), _ROUNDING_64)


def with_frames_between(frames: Sequence[Frame], between: int | None = None) -> Iterator[Frame]:
    """Yield 8-bit frames with `between` interpolated ones after each but the last, for motion of many pixels a frame.

    None takes as many as motion has pixels, so that what moves leaves no gaps: 99 of 100 pixels move less than one
    from frame to frame then, up to 15 frames in between.

    Raises:
        BlurError: if sizes differ or are below 12 pixels.
    """
    for first, second in pairwise(frames):
        yield first
        if between == 0:
            continue
        if first.shape != second.shape or min(first.shape[:2]) < _LEAST_SIDE:
            sizes = f"{first.shape} and {second.shape}"
            raise BlurError(f"frames between: expected one size of at least {_LEAST_SIDE} pixels a side, got {sizes}")
        forth, back = _flow(first, second), _flow(second, first)
        count = between
        if count is None:
            motion = float(np.percentile(np.linalg.norm(forth, axis=2), 99))
            count = min(max(int(np.ceil(motion)) - 1, 0), _MOST_BETWEEN)
        for number in range(1, count + 1):
            yield _between(first, second, forth, back, number / (count + 1))
    yield frames[-1]


def _flow(first: Frame, second: Frame) -> NDArray[np.float32]:
    """Return how far each pixel of `first` has moved in `second`: `(H, W, 2)`, x and y."""
    grey = [
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.shape[2] == 3 else frame[..., 0] for frame in (first, second)
    ]
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[0], grey[1], None)


def _between(first: Frame, second: Frame, forth: NDArray[np.float32], back: NDArray[np.float32], time: float) -> Frame:
    """Return the frame at `time` in (0, 1): both neighbours moved there along the flow, weighted by nearness.

    The flow at that time is put together from the flows at both ends, as for motion that keeps its speed.
    """
    to_first = -(1 - time) * time * forth + time**2 * back
    to_second = (1 - time) ** 2 * forth - time * (1 - time) * back
    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    moved = [
        cv2.remap(
            frame.astype(np.float32),
            x + flow[..., 0],
            y + flow[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        ).reshape(first.shape)
        for frame, flow in ((first, to_first.astype(np.float32)), (second, to_second.astype(np.float32)))
    ]
    return np.round((1 - time) * moved[0] + time * moved[1]).astype(np.uint8)


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
    shifts -= shifts[poses // 2]  # the sharp image is the middle of the exposure
    time[poses // 2] = 0  # not 1e-17
    return CameraPath(shifts, 2 * time * rng.uniform(-rotation, rotation))


def shake(photograph: Frame, path: CameraPath, gamma: float = GAMMA, highlights: float = 1.0) -> Frame:
    """Return an 8-bit photograph `(H, W, C)` as a camera on `path` would have taken it, aligned with the sharp one.

    Each pose is the photograph in linear light, moved with bilinear interpolation; edges are mirrored, so crop the
    path's length off if they matter. `highlights` as for `average_frames`.
    """
    height, width = photograph.shape[:2]
    light = (_light(gamma, highlights) / 255**gamma).astype(np.float32)[photograph]
    total = np.zeros_like(light)
    for (x, y), angle in zip(path.shifts, path.angles, strict=True):
        pose = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), np.degrees(angle), 1.0)
        pose[:, 2] += (x, y)
        total += cv2.warpAffine(light, pose, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _cut(255 * np.clip(total / len(path.angles), 0, 1).astype(np.float64) ** (1 / gamma), _ROUNDING_32)


def _light(gamma: float, highlights: float) -> NDArray[np.float64]:
    """Return the light of each of the 256 levels, 255^gamma being white."""
    light = np.arange(256, dtype=np.float64) ** gamma
    light[_WHITE:] *= highlights
    return light


def _cut(pixels: NDArray[np.float64], rounding: float) -> Frame:
    """Return the whole part; a value just below a whole number by the arithmetic's `rounding` counts as that number."""
    return np.floor(pixels + rounding).astype(np.uint8)
