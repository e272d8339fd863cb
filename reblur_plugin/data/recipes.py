"""How pairs are made: from consecutive frames of a fast camera, or from a photograph and a shaking hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reblur_plugin.data.blur import Frame, average_frames, random_path, shake, with_frames_between
from reblur_plugin.data.images import through_jpeg
from reblur_plugin.data.pairs import DatasetError


@dataclass(frozen=True)
class Settings:
    """How pairs are made.

    Attributes:
        gamma: the camera's curve x^(1/gamma): 2.2 makes the kind `blur_gamma`, 1 the kind `blur`.
        highlights: light of white pixels counts this many times before it is cut.
        noise: sigma of Gaussian noise on the blurry image, in levels of 255.
        jpeg: lowest and highest JPEG quality of the blurry image, drawn for each pair; None stores it as it is.
        seed: of all that is random; a pair depends on it, its sequence and its number alone.
    """

    gamma: float = 2.2
    highlights: float = 1.0
    noise: float = 0.0
    jpeg: tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.gamma not in (1, 2.2):
            raise DatasetError(f"gamma: expected 2.2 (blur_gamma) or 1 (blur), got {self.gamma}")
        for name, least in (("highlights", 1), ("noise", 0)):
            if getattr(self, name) < least:
                raise DatasetError(f"{name}: expected a number >= {least}, got {getattr(self, name)}")
        if self.jpeg and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise DatasetError(f"jpeg: expected qualities such as 70-95, got {self.jpeg[0]}-{self.jpeg[1]}")

    @property
    def kind(self) -> str:
        """The folder of the blurry images."""
        return "blur_gamma" if self.gamma == 2.2 else "blur"

    def finish(self, blurry: Frame, rng: np.random.Generator) -> Frame:
        """Return the blurry image as a camera would store it: with the noise and the JPEG artefacts asked for."""
        if self.noise:
            noisy = blurry + rng.normal(0, self.noise, blurry.shape)
            blurry = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
        if self.jpeg:
            blurry = through_jpeg(blurry, int(rng.integers(self.jpeg[0], self.jpeg[1] + 1)))
        return blurry


@dataclass(frozen=True)
class Films(Settings):
    """How pairs are made from frames. The sharp image is the middle frame, the later one of an even number.

    Attributes:
        least, most: frames averaged, drawn for each pair.
        stride: frames from one pair to the next; None goes on behind the last frame.
        between: frames interpolated between two; None takes as many as motion has pixels.
    """

    least: int = 7
    most: int = 13
    stride: int | None = None
    between: int | None = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.least <= self.most:
            raise DatasetError(f"frames: expected such as 7-13 or 8, got {self.least}-{self.most}")
        if (self.stride is not None and self.stride < 1) or (self.between is not None and self.between < 0):
            raise DatasetError("stride and interpolate: expected whole numbers, stride > 0 and interpolate >= 0")

    def make(self, frames: list[Frame], rng: np.random.Generator) -> tuple[Frame, Frame]:
        """Return the blurry and the sharp image of consecutive frames."""
        blurry = average_frames(with_frames_between(frames, self.between), self.gamma, self.highlights)
        return self.finish(blurry, rng), frames[len(frames) // 2]


@dataclass(frozen=True)
class Shakes(Settings):
    """How pairs are made from a photograph: see `data.blur.random_path`.

    Attributes:
        shortest, longest: the path's length in pixels, drawn for each pair.
        rotation: largest turn from the middle to an end, in radians.
        poses: positions of the camera that are averaged; odd.
        count: pairs from each photograph.
        spread: the camera goes along 0 +- spread, in radians.
        margin: pixels cut from each edge, where the picture had to be mirrored; None takes what the path needs.
    """

    shortest: float = 2.0
    longest: float = 20.0
    rotation: float = 0.003
    poses: int = 33
    count: int = 1
    spread: float = float(np.pi)
    margin: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shortest <= self.longest:
            raise DatasetError(f"shake: expected lengths such as 2-20, got {self.shortest}-{self.longest}")

    def make(self, photograph: Frame, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """Return the blurry and the sharp image of a photograph, without their mirrored edges.

        Raises:
            DatasetError: if nothing would be left.
        """
        height, width = photograph.shape[:2]
        path = random_path(rng, self.poses, rng.uniform(self.shortest, self.longest), 0, self.spread, self.rotation)
        cut = self.margin
        if cut is None:  # 0.65: half the path, its speeding and its bend (see random_path)
            cut = int(np.ceil(0.65 * self.longest + self.rotation * np.hypot(height, width) / 2))
        if min(height, width) <= 2 * cut:
            raise DatasetError(
                f"shake: a photograph of {width}x{height} is too small for paths of {self.longest} pixels"
            )
        blurry = self.finish(shake(photograph, path, self.gamma, self.highlights), rng)
        inside = np.s_[cut : height - cut, cut : width - cut]
        return blurry[inside], photograph[inside]
