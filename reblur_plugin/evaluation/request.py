"""What an evaluation is asked for, in plain values: the one reader of the `val` block's stages and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reblur_plugin.evaluation.journal import Journal
from reblur_plugin.evaluation.values import Metrics
from reblur_plugin.options.reading import metric_options


@dataclass(frozen=True)
class Request:
    """What is asked of an evaluation.

    Attributes:
        metrics: option blocks by name.
        adapts: whether images are adapted.
        adapted_steps: score and show the image after these updates too.
        input_metrics: score the blurry input as well.
        reblurred: score M_R(L) and L itself against the blurry input.
        batch_size: images of one size that are deblurred at once, unless they adapt.
        stem: path of an image's pictures by its name, without the endings of the stages; None writes none.
        comparison: also write a picture of all stages side by side.
        journal: images that it holds aren't computed again; each finished image is noted in it.
        rank, world_size: this process and their number; each takes its share of the images.
        quiet: shows no bar.
    """

    metrics: Metrics = field(default_factory=dict)
    adapts: bool = False
    adapted_steps: Sequence[int] = ()
    input_metrics: bool = False
    reblurred: bool = False
    batch_size: int = 1
    stem: Callable[[str], Path] | None = None
    comparison: bool = False
    journal: Journal | None = None
    rank: int = 0
    world_size: int = 1
    quiet: bool = True

    @classmethod
    def of(cls, opt: dict[str, Any], set_name: str, pictures_as: int | str | None = None) -> Request:
        """Return what the `val` block asks for; pictures carry `pictures_as` in training, None writes none."""
        val, rank, journal = opt["val"], opt.get("rank", 0), opt["path"].get("journal")
        return cls(
            metrics=metric_options(opt),
            adapts=val.get("tta") is not None,
            adapted_steps=val.get("adapted_steps", ()),
            input_metrics=bool(val.get("input_metrics")),
            reblurred=bool(val.get("reblurred")),
            batch_size=val.get("batch_size", 1),
            stem=None if pictures_as is None else lambda name: _stem(opt, set_name, name, pictures_as),
            comparison=bool(val.get("comparison")),
            journal=Journal(Path(journal), rank) if journal else None,
            rank=rank,
            world_size=opt.get("world_size", 1),
            quiet=rank != 0 or not val.get("pbar", not opt["is_train"]),
        )


def _stem(opt: dict[str, Any], set_name: str, name: str, current_iter: int | str) -> Path:
    """Return where BasicSR has pictures; names keep their sequence, so that none overwrites another."""
    folder = Path(opt["path"]["visualization"])
    if opt["is_train"]:
        return folder / name / f"{Path(name).name}_{current_iter}"
    suffix = opt["val"].get("suffix")
    return folder / set_name / (f"{name}_{suffix}" if suffix else name)
