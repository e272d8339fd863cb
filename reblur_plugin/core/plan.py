"""How one photograph is adapted: which activations are computed twice, in which tiles, at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from reblur_plugin.core.tiles import Tile, Tiling, cut


@dataclass(frozen=True)
class Plan:
    """The form of the computation; Algorithm 1 stays the same. The default is the whole photograph, all remembered.

    Attributes:
        deblur_depth, reblur_depth: which parts of M_D and M_R are checkpointed (`checkpointing.checkpointed`).
        tiling: how the photograph is cut; None: not at all.
        memory: bytes that the process will hold at most, and
        seconds: that it will take, by estimate; 0, if nobody has made one.
    """

    deblur_depth: int | None = None
    reblur_depth: int | None = None
    tiling: Tiling | None = None
    memory: int = 0
    seconds: float = 0.0

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of a photograph of that size."""
        return cut(height, width, self.tiling or Tiling())
