"""What is printed never ends a job: whatever the stream can't show, whoever has stopped reading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import sys
from pathlib import Path
from reblur_plugin.cli import guarded
from reblur_plugin.errors import ReblurError

def main():
    for number in range(2000):
        sys.stdout.write(f"{number} caf\\u00e9 \\udce9 \\u2713\\n")
        sys.stderr.write("caf\\u00e9 \\udce9\\n")
    Path(sys.argv[1]).touch()
    if sys.argv[2:]:
        raise ReblurError("\\udce9.png: damaged")
    return 0

sys.exit(guarded(main))
"""


def job(done: Path, redirection: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Return a job that has printed to where the shell sends its streams, and made the file `done` at its end."""
    words = [f'{sys.executable} -c "$JOB" {done} {redirection}']
    return subprocess.run(
        ["bash", "-c", *words], env={**os.environ, "JOB": JOB, **variables}, capture_output=True, check=False
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_stream_of_any_encoding_takes_any_name(tmp_path: Path, encoding: str) -> None:
    found = job(tmp_path / "done", PYTHONIOENCODING=encoding)
    assert (found.returncode, (tmp_path / "done").exists()) == (0, True)
    assert len(found.stdout.splitlines()) == 2000


@pytest.mark.parametrize("redirection", ["| head -n 1", "2>&1 >/dev/null | head -n 1", ">&-", "2>&-", ">&- 2>&-"])
def test_a_reader_that_goes_or_never_came_ends_no_job(tmp_path: Path, redirection: str) -> None:
    found = job(tmp_path / "done", redirection)
    assert (found.returncode, (tmp_path / "done").exists()) == (0, True)
    assert b"Error" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_disk_behind_the_stream_is_one_sentence_at_the_end(tmp_path: Path) -> None:
    found = job(tmp_path / "done", "> /dev/full")
    assert (found.returncode, (tmp_path / "done").exists()) == (1, True)
    assert found.stderr.splitlines()[-1].startswith(b"error: standard output: can't be written (No space left")


def test_an_errors_sentence_is_shown_in_any_encoding(tmp_path: Path) -> None:
    found = job(tmp_path / "done", "error", PYTHONIOENCODING="ascii:strict")
    assert (found.returncode, found.stderr.splitlines()[-1]) == (1, b"error: \\udce9.png: damaged")
