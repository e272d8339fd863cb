"""What browsers load once: the page, its script and styles, the examples."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import PurePath

import jinja2

from reblur_plugin.app.settings import MOST_STEPS, PRECISIONS, Settings
from reblur_plugin.app.visitors import MOST_PHOTOGRAPHS
from reblur_plugin.data.images import SUFFIXES
from reblur_plugin.errors import ReblurError

EXAMPLES = {"square.jpg": "people on a square", "cars.jpg": "parked cars"}
WEIGHTS = (".pth", ".pt", ".safetensors")
_STATIC = {f"page.{kind}": (__package__, f"page/page.{kind}") for kind in ("css", "js")}
_STATIC |= {f"viewer.{kind}": ("reblur_plugin.viewer", f"viewer.{kind}") for kind in ("css", "js")}
_TYPES = {".css": "text/css", ".js": "text/javascript"}


def page(settings: Settings) -> str:
    """Return the page, with what its server offers."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_resource(__package__, "page/index.html.jinja").decode())
    return template.render(
        facts=json.dumps({"maxUpload": settings.max_upload, "weights": WEIGHTS}),
        accept=",".join(SUFFIXES),
        weights_accept=",".join(WEIGHTS),
        weights=settings.offered(),
        better=settings.better(),
        precisions=PRECISIONS,
        most_steps=MOST_STEPS,
        max_megapixels=settings.max_pixels / 1e6,
        max_megabytes=settings.max_upload / 2**20,
        max_photographs=MOST_PHOTOGRAPHS,
        examples=EXAMPLES,
    )


def static(name: str) -> tuple[bytes, str] | None:
    """Return a script or style and its type; None, if there is none of that name."""
    return (_resource(*_STATIC[name]), _TYPES[PurePath(name).suffix]) if name in _STATIC else None


def example(name: str) -> bytes:
    """Return an example's file.

    Raises:
        ReblurError: if there is none of that name.
    """
    if name not in EXAMPLES:
        raise ReblurError(f"example: expected one of {', '.join(EXAMPLES)}, got {name!r}")
    return _resource(__package__, f"examples/{name}")


def _resource(package: str, name: str) -> bytes:
    return (resources.files(package) / name).read_bytes()
