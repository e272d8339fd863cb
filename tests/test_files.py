"""Files that are whole or not there, and the one sentence of a disk that refuses."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from reblur_plugin import files
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import FileError, locked, remove_parts, temporary_folder, whole_file, writing

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


class TestReplacing:
    """Windows refuses to replace a file that somebody has open."""

    @pytest.fixture
    def refusals(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How often replacing is still to be refused; pauses take no time."""
        left, replace = [0], Path.replace

        def refuse(self: Path, target: Path) -> Path:
            if left[0]:
                left[0] -= 1
                raise PermissionError(13, "Permission denied")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", refuse)
        monkeypatch.setattr("time.sleep", lambda _: None)
        return left

    def on(self, system: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "name", system)
            try:
                files._replace(path.with_suffix(".part"), path)
            except PermissionError:
                return "refused"
        return "done"

    @pytest.mark.parametrize(
        ("system", "times", "found"), [("nt", 5, "done"), ("nt", 6, "refused"), ("posix", 1, "refused")]
    )
    def test_is_tried_again_there_for_a_while(
        self, tmp_path: Path, refusals: list[int], monkeypatch: pytest.MonkeyPatch, system: str, times: int, found: str
    ) -> None:
        (tmp_path / "a.part").touch()
        refusals[0] = times
        assert self.on(system, tmp_path / "a.png", monkeypatch) == found


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


def in_another_process(code: str, folder: Path) -> str:
    """Return what a Python that runs `code`, then kills itself, prints. `folder` is known there."""
    lines = ["import os, signal", "from pathlib import Path", "from reblur_plugin import files"]
    lines += ["from reblur_plugin.files import FileError, locked, whole_file", f"folder = Path({str(folder)!r})", code]
    lines.append("os.kill(os.getpid(), signal.SIGKILL)")
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False).stdout


class TestKilledWriters:
    """A writer that is killed leaves a part; the next one in that folder removes it."""

    HALF = """
with whole_file(folder / "a.png") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""

    def test_a_part_of_a_process_that_is_dead_goes_with_the_next_file(self, tmp_path: Path) -> None:
        in_another_process(self.HALF, tmp_path)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        with whole_file(tmp_path / "b.png"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["b.png"]

    def test_parts_of_other_machines_and_of_the_living_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        in_another_process(self.HALF, tmp_path)
        (tmp_path / f".c.png.{files._machine()}.{os.getppid()}.part").touch()
        monkeypatch.setattr(files, "_machine", lambda: "00000000")
        with whole_file(tmp_path / "b.png"):
            pass
        assert len(list(tmp_path.glob("*.part"))) == 2
        monkeypatch.undo()
        files._forget_the_dead.cache_clear()
        with whole_file(tmp_path / "b.png"):
            pass
        assert [path.name.split(".")[1] for path in tmp_path.glob(".*.part")] == ["c"]

    def test_a_container_of_the_same_name_is_another_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        own = files._machine()
        with monkeypatch.context() as patch:
            patch.setattr(os, "readlink", lambda path: "pid:[1]")
            other = files._machine()
        assert own != other

    def test_where_a_look_at_a_process_would_end_it_none_is_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = tmp_path / f".a.png.{files._machine()}.1.part"
        part.touch()
        with monkeypatch.context() as patch:
            patch.setattr("os.kill", lambda *_: part.unlink())
            patch.setattr(files.os, "name", "nt")
            alive = files._is_alive(1)
        assert alive
        assert part.exists()

    def test_a_name_as_long_as_the_disk_takes_can_be_written(self, tmp_path: Path) -> None:
        for name in ("\u00e9" * 125 + ".png", "a" * 251 + ".png"):
            with whole_file(tmp_path / name) as file:
                file.write(b"content")
            assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.skipif(files.fcntl is None, reason="this system has no POSIX locks")
class TestLocked:
    TRY = """
try:
    with locked(folder):
        print("free")
except FileError as error:
    print(error)
os._exit(0)
"""

    def test_another_process_is_told_which_one_is_at_work(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        with locked(folder):
            assert in_another_process(self.TRY, folder) == (
                f"{folder}: expected no other run to write there, got process {os.getpid()} of {socket.gethostname()}; "
                "wait for its end, or take another name\n"
            )
        assert in_another_process(self.TRY, folder) == "free\n"

    def test_a_second_use_in_the_same_process_is_refused_and_ends_no_lock(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        with locked(folder):
            with pytest.raises(FileError, match="got this process; wait"), locked(folder):
                pass
            assert "expected no other run" in in_another_process(self.TRY, folder)
        with locked(folder):
            pass

    def test_nothing_stays(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), locked(tmp_path / "run"):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_process_has_it_no_more(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        in_another_process("files._lock(folder.with_name('.run.lock'), folder)", folder)
        assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]
        assert in_another_process(self.TRY, folder) == "free\n"

    def test_a_folder_may_move_meanwhile(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        with locked(tmp_path / "run"):
            (tmp_path / "run").rename(tmp_path / "older")
            assert "expected no other run" in in_another_process(self.TRY, tmp_path / "run")

    def test_a_disk_without_locks_is_written_to_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.lockf", refuse)
        with locked(tmp_path / "run"):
            pass


class TestTemporaryFolder:
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def test_it_is_one_s_own_and_goes_with_the_block(self, tmp_path: Path) -> None:
        with temporary_folder("ours") as first, temporary_folder("ours") as second:
            assert first != second
            assert {first.parent, second.parent} == {tmp_path}
            assert first.stat().st_mode & 0o77 == 0
            (first / "file").touch()
        assert list(tmp_path.iterdir()) == []

    def test_what_the_dead_have_left_goes_and_what_is_in_use_stays(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as dead:
            dead.wait()
        with temporary_folder("ours") as in_use:
            own = str(os.getpid())
            for name in (in_use.name.replace(own, str(dead.pid)), f"ours.elsewhere.{dead.pid}.x", "ours"):
                (tmp_path / name).mkdir()
                (tmp_path / name / "file").touch()
            with temporary_folder("ours"), temporary_folder("theirs"):
                pass
            assert {path.name for path in tmp_path.iterdir()} == {in_use.name, f"ours.elsewhere.{dead.pid}.x", "ours"}
