"""Which weights have a name, whose they are, and where they lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from reblur_plugin.errors import ReblurError, did_you_mean

_SHIPPED = Path(__file__).parent
_PAPERS_LR = 3e-6
_DMPHN = "https://raw.githubusercontent.com/HongguangZhang/DMPHN-cvpr19-master/64af480d958e550625ea24678066dba09d1b4d3e"
_DMPHN_FILES = {  # bytes and sha256
    "encoder_lv1": (3477667, "938651e29071b661d59909b68d1772d590c3a7a7191cebee22b521dd78af84c0"),
    "encoder_lv2": (3477667, "1357fd72cec9da556864bf3d1156879d154f40efb1b806547b713c4bf3877fa2"),
    "encoder_lv3": (3477667, "c9864598889dca34503211e94978e056135d6ad9e8b7e297bf076665997a55ef"),
    "encoder_lv4": (3477667, "01de21b48fc6b216c737acb3fe854ed085f68d93b498f7f0862872606e99f632"),
    "decoder_lv1": (3763929, "387a0ee8dd945052d069cdce6e6322ec9c93173896a28a72ac2be211bb0a78b2"),
    "decoder_lv2": (3763929, "9ec171ef8513eb85598af0c150904dee1aafe2674416a1878a3f093752721c08"),
    "decoder_lv3": (3763925, "aff3d672b9c81bc9067fe8e111f1901d9e78269fdb103c3f56d7690bec1aa740"),
    "decoder_lv4": (3763927, "5f88c7117f902ce7087ba18fc2b4ec395680d2ad2e6ddc0931284c8e4f1c25e5"),
}


class WeightsError(ReblurError):
    """Named weights that aren't there and can't be had; the message says why and what to do."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its address, its bytes and their sha256."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Named:
    """An M_D with a name, and the M_R that adapts it.

    Attributes:
        name: what `--weights` takes.
        about: what it is, in a line.
        licence: of M_D's weights; M_R's are ours.
        deblur_net, reblur_net: files of M_D and M_R, as a training here writes them.
        lr: mu, the learning rate by which it adapts.
        remotes: what M_D's file is made of when it is fetched; none, if it is part of this package.
    """

    name: str
    about: str
    licence: str
    deblur_net: Path
    reblur_net: Path
    lr: float
    remotes: tuple[Remote, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether nothing needs to be fetched."""
        return self.deblur_net.is_file()

    @property
    def size(self) -> int:
        """Bytes of M_D: on this machine, or to be fetched."""
        return self.deblur_net.stat().st_size if self.is_here else sum(remote.size for remote in self.remotes)


def cache() -> Path:
    """Return the folder of what is fetched: REBLUR_CACHE, or the user's usual one."""
    return Path(os.environ.get("REBLUR_CACHE") or platformdirs.user_cache_path("reblur_plugin", appauthor=False))


def catalogue() -> tuple[Named, ...]:
    """Return all weights that have a name, the best first."""
    official = "dhn-official"
    return (
        Named(
            official,
            "DHN with DMPHN's official weights (github.com/HongguangZhang/DMPHN-cvpr19-master), trained on GOPRO",
            "none stated by its authors",
            cache() / f"net_g_{official}.pth",
            _SHIPPED / f"net_r_{official}.pth",
            3e-6,
            tuple(Remote(f"{_DMPHN}/checkpoints/DMPHN_1_2_4_8/{name}.pkl", *of) for name, of in _DMPHN_FILES.items()),
        ),
        Named(
            "resunet-small",
            "a small residual U-Net, trained here on freely licensed pictures",
            "Apache-2.0",
            _SHIPPED / "net_g_resunet-small.pth",
            _SHIPPED / "net_r_resunet-small.pth",
            3e-5,
        ),
    )


def named(weights: str | Path) -> Named | None:
    """Return the weights of this name; None, if it is rather a file's path (./NAME for a file of such a name)."""
    return next((one for one in catalogue() if one.name == str(weights)), None)


def usual_lr(weights: str | Path) -> float:
    """Return the learning rate by which weights adapt: that of their name, else the paper's."""
    known = named(weights)
    return _PAPERS_LR if known is None else known.lr


def must_be_named(name: str) -> Named:
    """Return the weights of this name.

    Raises:
        WeightsError: if there are none.
    """
    found = named(name)
    if found is None:
        raise WeightsError(f"weights: nothing is named {name!r}{did_you_mean(name, (one.name for one in catalogue()))}")
    return found


def best_here() -> tuple[Named, str]:
    """Return the best weights that are on this machine, and a line on better ones; empty, if there are none."""
    known = catalogue()
    number = next((number for number, one in enumerate(known) if one.is_here), len(known) - 1)
    if number == 0:
        return known[0], ""
    better = known[0]
    return known[number], (
        f"{better.name} deblurs better: python -m reblur_plugin.weights fetch {better.name} "
        f"({better.size / 1e6:.0f} MB; licence: {better.licence})"
    )
