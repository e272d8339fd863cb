"""Whatever strangers' files and words hold: one sentence at most, nothing outside the working folder, no end of time.

The examples are the same in every run.
"""

from __future__ import annotations

import copy
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import reblur_plugin
from reblur_plugin import check, checkpoints, cli, test, train
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.data.images import decode_image
from reblur_plugin.errors import ReblurError
from reblur_plugin.photographs.photograph import Photograph

reblur_plugin.register()

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no clock that ends a hang")
SECONDS = 30  # of an example: beyond that it hangs
PROGRAMS = {"train": train.main, "test": test.main, "check": check.main}
STRANGE: list[Any] = [None, True, -1, 0, 3, 2**70, -1.5, 1e308, float("nan"), float("inf"), "", " ", "../../x", "/x"]
STRANGE += ["a\n", "a\0", "~nobody.here/x", "x" * 400, "\u00e9\udcff", "1e400", "0100", [], [[]], [None], {}]
STRANGE += [{"type": "x"}, {"a": {}}, {"type": "SRN"}, {"type": "ReblurDiscriminator"}, 10**23, 5_000_000_000]
STRANGE += [{"type": "GANLoss", "gan_type": "vanilla"}, int("9" * 400), [0.9], "5:6", "50%\n"]
KEYS = [
    "type",
    "name",
    "lr",
    "../../x",
    "val_x",
    "test_/../../x",
    "weights",
    "",
    "1",
    "best",
    "tta",
    "seed",
    "betas",
    "gan_opt",
]


def examples(count: int) -> Any:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def in_time() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_named(path: Path, use: Callable[[], object]) -> None:
    """Use a file; what is wrong with it must be a sentence that names it."""
    said = ""
    with in_time():
        try:
            use()
        except ReblurError as error:
            said = str(error)
    assert not said or str(path) in said


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the values of nested blocks are."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*above, key)
        yield from places(item, (*above, key))


def spoilt(options: Any, place: tuple[Any, ...], value: Any, key: str | None) -> Any:
    """Return options with another value at a place, or (with `key`) beside it, or (value "drop") without it."""
    options = copy.deepcopy(options)
    block = options
    for step in place[:-1]:
        block = block[step]
    if key is not None and isinstance(block, dict):
        block[key] = value
    elif value == "drop":
        del block[place[-1]]
    else:
        block[place[-1]] = value
    return options


def everything(folder: Path, but: Path) -> dict[str, tuple[int, int]]:
    """Return all files with sizes and times, but for those in one folder."""
    found = {path: path.lstat() for path in folder.rglob("*") if not path.is_relative_to(but)}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items() if path.is_file()}


class Place:
    """A folder with data and options in order, in which commands run from an empty one."""

    def __init__(self, folder: Path, options: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        self.folder, self.cwd, self.options, self.patch = folder, folder / "a" / "b" / "cwd", options, patch
        self.file = folder / "o.yml"
        self.cwd.mkdir(parents=True)
        patch.chdir(self.cwd)

    def run(self, program: str, content: bytes, *words: str) -> None:
        """Run a command; it must end by itself, with an exit code, and change nothing elsewhere."""
        self.file.write_bytes(content)
        before = everything(self.folder, self.cwd)
        self.patch.setattr(sys, "argv", [program, "-opt", str(self.file), *words])
        with in_time():
            try:
                code = cli.guarded(PROGRAMS[program])
            except SystemExit as end:  # argparse's
                code = int(end.code or 0)
        assert code in (0, 1, 2)
        assert everything(self.folder, self.cwd) == before


@pytest.fixture
def place(tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Place:
    tiny_options["train"]["total_iter"] = 1
    tiny_options["val"] |= {"val_freq": 1, "save_img": False, "tta": {"steps": 1}}
    tiny_options["train"]["scheduler"]["milestones"] = [1]
    return Place(tmp_path, tiny_options, monkeypatch)


class TestOptions:
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_any_value_at_any_place_of_a_file(self, place: Place, program: str) -> None:
        where = st.sampled_from(list(places(place.options)))
        values = [*STRANGE, "drop", place.options["datasets"]["val"]]

        @examples(150)
        @given(where, st.sampled_from(values), st.one_of(st.none(), st.sampled_from(KEYS)))
        def spoil(at: tuple[Any, ...], value: Any, key: str | None) -> None:
            changed = spoilt(place.options, at, value, key)
            place.run(program, yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass"))

        spoil()

    def test_any_words_of_force_yml(self, place: Place) -> None:
        content = yaml.safe_dump(place.options).encode()
        names = st.sampled_from(["train", "val", "datasets", "network_g", "name", "logger", "x", "lr", "a/../../b", ""])
        words = ["{type: x}", "[", "{a: *b}", "!!python/name:os", "&a [*a]"]
        entry = st.builds(
            lambda keys, between, value: f"{':'.join(keys)}{between}{value}",
            st.lists(names, min_size=1, max_size=4),
            st.sampled_from(["=", "==", "", ":="]),
            st.one_of(st.text(max_size=12), st.sampled_from(words)),
        )

        @examples(60)
        @given(st.lists(entry, min_size=1, max_size=3))
        def spoil(words: list[str]) -> None:
            place.run("train", content, "--force_yml", *words)

        spoil()

    def test_any_bytes_as_a_file(self, place: Place) -> None:
        content = yaml.safe_dump(place.options).encode()

        @examples(40)
        @given(st.integers(0, len(content)), st.binary(max_size=8), st.integers(0, 40))
        def spoil(at: int, bytes_: bytes, length: int) -> None:
            place.run("test", content[:at] + bytes_ + content[at + length :])

        spoil()


def pictures() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    found = {}
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif"):
        for mode, channels in (("RGB", 3), ("L", 1), ("RGBA", 4)):
            if suffix in (".jpg", ".bmp") and mode == "RGBA":
                continue
            pixels = rng.integers(0, 256, (9, 11, channels), np.uint8)
            file = io.BytesIO()
            kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode).save(file, kind)
            found[f"{mode}{suffix}"] = file.getvalue()
    return found


PICTURES = pictures()


@pytest.mark.parametrize("read", [Photograph.load, decode_image])
def test_any_bytes_of_a_picture(tmp_path: Path, read: Any) -> None:
    @examples(300)
    @given(st.sampled_from(sorted(PICTURES)), st.integers(0, 400), st.binary(max_size=4), st.integers(0, 600))
    def spoil(name: str, at: int, bytes_: bytes, length: int) -> None:
        content = PICTURES[name]
        path = tmp_path / f"a{Path(name).suffix}"
        removed = len(bytes_) if length > 300 else length
        path.write_bytes(content[:at] + bytes_ + content[at + removed :])
        assert_named(path, lambda: read(path))

    spoil()


def test_any_bytes_of_a_checkpoint(tmp_path: Path) -> None:
    network = ResUNet(1, (2, 2, 2))
    origin = {"options": {"network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [2, 2, 2]}}}
    path = tmp_path / "net_g.pth"
    checkpoints.save_network({"params": network}, origin, path)
    zipped, legacy = path.read_bytes(), io.BytesIO()
    torch.save({"params": network.state_dict(), "origin": origin}, legacy, _use_new_zipfile_serialization=False)

    @examples(200)
    @given(st.sampled_from([zipped, legacy.getvalue()]), st.floats(0, 1), st.binary(max_size=6), st.integers(0, 60))
    def spoil(content: bytes, part: float, bytes_: bytes, length: int) -> None:
        at = int(part * len(content))
        path.write_bytes(content[:at] + bytes_ + content[at + length :])
        assert_named(path, lambda: checkpoints.network(path, "g"))

    spoil()


def test_any_content_of_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "net_g.pth"
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.just(torch.ones(2)))
    keys = st.sampled_from(["params", "params_ema", "state_dict", "model", "origin", "options", "network_g", "type"])
    trees = st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner)), max_leaves=8
    )

    @examples(150)
    @given(trees)
    def spoil(content: Any) -> None:
        torch.save(content, path)
        assert_named(path, lambda: checkpoints.state_dict(path))
        assert_named(path, lambda: checkpoints.options(path))
        assert_named(path, lambda: checkpoints.network(path, "g"))

    spoil()
