"""Files that are whole or not there, and the one sentence of a disk that refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

import pytest

from reblur_plugin.errors import ReblurError
from reblur_plugin.files import FileError, remove_parts, whole_file, writing

FULL = OSError(28, "No space left on device")


def spoil(file: BinaryIO, error: BaseException) -> None:
    file.write(b"half of it")
    raise error


class TestWholeFile:
    def test_the_file_gets_its_name_and_its_folder_when_the_block_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "file"
        with whole_file(path) as file:
            file.write(b"content")
            assert not path.exists()
        assert path.read_bytes() == b"content"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [FULL, ReblurError("no picture"), KeyboardInterrupt()])
    def test_whatever_ends_the_block_the_older_file_stays_alone(self, tmp_path: Path, error: BaseException) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"older")
        with pytest.raises((ReblurError, KeyboardInterrupt)), whole_file(path) as file:
            spoil(file, error)
        assert path.read_bytes() == b"older"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_refusal_names_what_the_caller_names(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for named, expected in ((None, tmp_path / "file" / "x"), (tmp_path / "file", tmp_path / "file")):
            with pytest.raises(FileError) as caught, whole_file(tmp_path / "file" / "x", "free it", named):
                pass
            assert re.fullmatch(rf"{expected}: can't be written \(.+\); free it", str(caught.value))


class TestWriting:
    @pytest.mark.parametrize(
        ("error", "remedy", "message"),
        [
            (FULL, "", "x: can't be written (No space left on device)"),
            (FULL, "free the disk", "x: can't be written (No space left on device); free the disk"),
            (OSError("3 requested and 2 written"), "", "x: can't be written (3 requested and 2 written)"),  # NumPy's
        ],
    )
    def test_a_refusal_is_one_sentence(self, error: Exception, remedy: str, message: str) -> None:
        with pytest.raises(FileError, match=f"^{re.escape(message)}$"), writing(Path("x"), remedy):
            raise error

    @pytest.mark.parametrize(
        "error", [ReblurError("a.png: damaged"), RuntimeError("no kernel"), MemoryError(), KeyboardInterrupt()]
    )
    def test_what_isnt_the_disks_stays_what_it_is(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, writing(Path("x")):
            raise error
        assert caught.value is error


def test_parts_that_a_killed_writer_left_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "a.npy"
    for path in (kept, tmp_path / f".a.npy.{os.getpid()}.part", tmp_path / "b" / ".c.npy.1.part"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_parts(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
