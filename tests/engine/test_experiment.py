"""The folders of a run: an older run of the same name moves aside, its curves with it."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import Runner, errors, until

from reblur_plugin import files
from reblur_plugin.engine import training
from reblur_plugin.files import FileError

Options = dict[str, Any]


class TestFolders:
    def test_a_new_run_moves_the_older_one_and_its_curves_aside_by_one_stamp(
        self, tmp_path: Path, tiny_options: Options
    ) -> None:
        tiny_options["logger"]["use_tb_logger"] = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TensorBoard's own imports
            for _ in range(3):  # two of them within one second
                training.train(tiny_options, tmp_path)
        names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("experiments", "tb_logger")]
        assert names[0] == names[1]
        assert len(names[0]) == 3
        assert len(list((tmp_path / "tb_logger" / "tiny").iterdir())) == 1
        log = next((tmp_path / "experiments" / "tiny").glob("*.log")).read_text()
        assert f"The older run of this name is in {tmp_path / 'experiments' / names[0][-1]} now" in log

    def test_a_resumed_run_keeps_its_curves(self, tmp_path: Path, tiny_options: Options) -> None:
        tiny_options["logger"]["use_tb_logger"] = True
        training.train(tiny_options, tmp_path)
        tiny_options["train"]["total_iter"] = 4
        training.train(tiny_options, tmp_path, auto_resume=True)
        assert [path.name for path in (tmp_path / "tb_logger").iterdir()] == ["tiny"]
        assert len(list((tmp_path / "tb_logger" / "tiny").iterdir())) == 2

    @pytest.mark.skipif(files.fcntl is None, reason="this system has no POSIX locks")
    @pytest.mark.parametrize("auto_resume", [False, True])
    def test_a_live_run_is_left_alone(
        self, tmp_path: Path, tiny_options: Options, runner: Runner, auto_resume: bool
    ) -> None:
        held = (
            "import time\nfrom reblur_plugin.engine.training import Training as It\nIt.run = lambda _: time.sleep(900)"
        )
        started = runner.start(tiny_options, tmp_path, prelude=held)
        until(lambda: bool(list((tmp_path / "experiments" / "tiny").glob("*.log"))))
        try:
            with pytest.raises(FileError, match=rf"tiny: expected no other run to write there, got process {started} "):
                training.train(tiny_options, tmp_path, auto_resume=auto_resume)
        finally:
            os.kill(started, signal.SIGKILL)
            runner.wait()
        assert [path.name for path in (tmp_path / "experiments").glob("[!.]*")] == ["tiny"]
        assert training.train(tiny_options, tmp_path, auto_resume=auto_resume)  # the lock went with the process

    @pytest.mark.skipif(files.fcntl is None, reason="this system has no POSIX locks")
    def test_all_processes_of_a_second_run_are_refused(
        self, tmp_path: Path, tiny_options: Options, runner: Runner
    ) -> None:
        # else the others would wait for the first one, for hours
        with files.locked(tmp_path / "experiments" / "tiny"):
            assert runner.run(tiny_options, tmp_path, processes=2, at_once=False) == [1, 1]
        for rank in (0, 1):
            assert "tiny: expected no other run to write there, got process" in errors(tmp_path, rank)

    def test_curves_without_a_run_move_aside_too(self, tmp_path: Path, tiny_options: Options) -> None:
        (tmp_path / "tb_logger" / "tiny").mkdir(parents=True)
        training.train(tiny_options, tmp_path)
        assert [path.name[:14] for path in (tmp_path / "tb_logger").iterdir()] == ["tiny_archived_"]
