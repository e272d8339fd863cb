"""Signals, errors and hanging workers in the middle of a training: it is saved, and no process waits for another."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Runner, errors, is_alive, until
from torch.utils.data import DataLoader

from reblur_plugin import checkpoints
from reblur_plugin.engine.interruption import Interrupted, Interruption, WatchedImages
from reblur_plugin.errors import ReblurError

Options = dict[str, Any]
DAMAGED = "expected an image, got a damaged or unknown file; unzip or download it again"

# Lets the test know that a signal has been noted: a second one sent before could be lost in the first.
_NOTED = """
from reblur_plugin.engine.interruption import Interruption
note = Interruption._note
def noted(self, number, frame):
    note(self, number, frame)
    (folder / "noted").touch()
Interruption._note = noted
"""
# Lets something happen in iteration 3 of one process.
_SIGNAL = """
import os, signal, time
from reblur_plugin.models.reblur_model import ReblurModel
whole = ReblurModel.optimize_parameters
def optimize_parameters(self, iteration):
    whole(self, iteration)
    if iteration == 3 and rank == {rank}:
        {act}
ReblurModel.optimize_parameters = optimize_parameters
"""
# Notes each image of a validation, and lets something happen at the one of number {image}.
_VALIDATION = """
import os, signal
from reblur_plugin.data.pair_dataset import DeblurPairDataset
whole = DeblurPairDataset.__getitem__
def item(self, index):
    if self.opt["phase"] == "val" and (folder / "experiments").exists():
        with (folder / "seen").open("a") as file:
            file.write(f"{{index}} ")
        if index == {image} and not (folder / "done").exists():
            {act}
    return whole(self, index)
DeblurPairDataset.__getitem__ = item
"""
_TERMINATE = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.fixture
def options(tiny_options: Options) -> Options:
    """Options of a training without end and without validation, saved by nothing but what interrupts it."""
    tiny_options["train"]["total_iter"] = 100_000
    tiny_options["logger"] |= {"print_freq": 100_000, "save_checkpoint_freq": 100_000}
    tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 1
    del tiny_options["val"]
    return tiny_options


@pytest.fixture
def validated(options: Options, tiny_data: Path) -> Options:
    """The same with a validation of four images at iteration 3, and an end after 4."""
    options["train"]["total_iter"] = 4
    options["val"] = {"val_freq": 3, "save_img": False}
    options["datasets"]["val"]["dataroot"] = str(tiny_data / "train")
    return options


def states(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "experiments" / "tiny" / "training_states").iterdir())


def sentences(folder: Path, rank: int = 0) -> list[str]:
    return [line for line in errors(folder, rank).splitlines() if line.startswith("error: ")]


def workers_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


class TestSignals:
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
    def test_one_to_the_whole_group_saves_in_one_line_and_the_run_goes_on(
        self, tmp_path: Path, options: Options, runner: Runner, name: str
    ) -> None:
        # From outside, as launchers do: PyTorch's workers treat what comes from their parent in another way.
        act = "(folder / 'ready').touch(); [time.sleep(0.01) for _ in iter((folder / 'noted').exists, True)]"
        prelude = _NOTED + _SIGNAL.format(rank=0, act=act)
        process = runner.start(options, tmp_path, prelude=prelude, at_once=False)
        until((tmp_path / "ready").exists)
        os.killpg(process, signal.Signals[name])
        assert runner.wait() == [130]
        assert states(tmp_path) == [3]
        *_, line = errors(tmp_path).splitlines()
        assert line.endswith(f"INFO: {name}: saved iteration 3; go on with --auto_resume")
        assert "Traceback" not in errors(tmp_path)
        options["train"]["total_iter"] = 5
        assert runner.run(options, tmp_path, auto_resume=True) == [0]
        assert states(tmp_path) == [3, 5]

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path: Path, options: Options, runner: Runner) -> None:
        act = "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)"
        assert runner.run(options, tmp_path, prelude=_SIGNAL.format(rank=0, act=act)) == [130]
        assert errors(tmp_path).splitlines()[-1] == "stopped"
        assert states(tmp_path) == []

    def test_a_second_sigterm_lets_it_save(self, tmp_path: Path, options: Options, runner: Runner) -> None:
        act = "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)"  # as torchrun does
        assert runner.run(options, tmp_path, prelude=_SIGNAL.format(rank=0, act=act)) == [130]
        assert states(tmp_path) == [3]

    def test_a_worker_that_hangs_keeps_nobody_from_leaving(
        self, tmp_path: Path, options: Options, runner: Runner
    ) -> None:
        # A lock that nobody opens lets no handler of Python's run; C code that hangs is like it.
        prelude = f"""{_NOTED}
import threading
from reblur_plugin.data.pair_dataset import DeblurPairDataset
from reblur_plugin.engine.batches import Batches
next_batch, asked = Batches.next, []
def waiting(self):
    asked.append(1)
    if len(asked) == 6:  # for the fifth batch: the first is tried out and asked for again
        (folder / "waits").touch()
    return next_batch(self)
Batches.next = waiting
whole = DeblurPairDataset.__getitem__
def item(self, draw):
    if draw.number >= 8:
        (folder / "hangs").touch()
        threading.Lock().acquire() and threading.Event().wait()
    return whole(self, draw)
DeblurPairDataset.__getitem__ = item
"""
        process = runner.start(options, tmp_path, prelude=prelude, at_once=False)
        until(lambda: all((tmp_path / name).exists() for name in ("hangs", "waits")))
        workers = workers_of(process)
        os.killpg(process, signal.SIGINT)
        until((tmp_path / "noted").exists)
        os.killpg(process, signal.SIGINT)
        assert runner.wait() == [130]
        assert errors(tmp_path).splitlines()[-1] == "stopped"
        assert workers
        assert not any(map(is_alive, workers))

    def test_workers_end_with_a_main_process_that_is_killed(
        self, tmp_path: Path, options: Options, runner: Runner
    ) -> None:
        options["datasets"]["train"]["num_worker_per_gpu"] = 2
        process = runner.start(options, tmp_path)
        until(lambda: (tmp_path / "experiments").exists())
        workers = workers_of(process)
        assert len(workers) == 2
        os.kill(process, signal.SIGKILL)
        assert runner.wait() == [-signal.SIGKILL]
        until(lambda: not any(map(is_alive, workers)))


class TestValidation:
    @pytest.mark.parametrize("save_freq", [3, 100_000], ids=["saved before", "not saved"])
    def test_a_signal_ends_it_between_two_images_and_it_is_done_again(
        self, tmp_path: Path, validated: Options, runner: Runner, save_freq: int
    ) -> None:
        validated["logger"]["save_checkpoint_freq"] = save_freq
        prelude = _VALIDATION.format(image=1, act=_TERMINATE)
        assert runner.run(validated, tmp_path, prelude=prelude) == [130]
        assert "SIGTERM: saved iteration 3; go on with --auto_resume" in errors(tmp_path)
        assert (tmp_path / "seen").read_text() == "0 1 "
        assert checkpoints.load(tmp_path / "experiments/tiny/training_states/3.state")["to_validate"] is True
        (tmp_path / "done").touch()
        assert runner.run(validated, tmp_path, auto_resume=True, prelude=prelude) == [0]
        # metrics are tried on the first image, then the validations of iterations 3 and 4
        assert (tmp_path / "seen").read_text() == "0 1 " + "0 " + "0 1 2 3 " * 2
        assert states(tmp_path)[-1] == 4

    def test_an_error_in_it_saves_first(self, tmp_path: Path, validated: Options, runner: Runner) -> None:
        act = "self.pairs[2].blurry.write_bytes(b'x')"
        assert runner.run(validated, tmp_path, prelude=_VALIDATION.format(image=1, act=act)) == [1]
        (sentence,) = sentences(tmp_path)
        assert sentence.endswith(f"SEQ_B/blur_gamma/000000.png: {DAMAGED}")
        assert "Traceback" not in errors(tmp_path)
        assert states(tmp_path) == [3]

    def test_an_error_that_nobody_thought_of_saves_first_and_shows_itself(
        self, tmp_path: Path, validated: Options, runner: Runner
    ) -> None:
        prelude = """
from reblur_plugin.models.reblur_model import ReblurModel
whole = ReblurModel.deblur
def deblur(self, image):
    if self.iteration == 3:
        raise MemoryError("no memory for this image")
    return whole(self, image)
ReblurModel.deblur = deblur
"""
        assert runner.run(validated, tmp_path, prelude=prelude, at_once=False) == [1]
        assert "no memory for this image: saved iteration 3; go on with --auto_resume" in errors(tmp_path)
        assert errors(tmp_path).splitlines()[-1] == "MemoryError: no memory for this image"
        assert states(tmp_path) == [3]


def test_an_error_goes_before_a_signal() -> None:
    # both met one process: the error is to be raised after saving, and a signal alone would leave it untold
    stop, broken = Interruption(1), ReblurError("a.png: damaged")
    stop.signal = "SIGTERM"

    def read() -> None:
        raise broken

    with pytest.raises(Interrupted, match=r"^a\.png: damaged$") as caught:
        stop.together(read)
    assert caught.value.error is broken


class TestWatchedImages:
    class Five:
        opt: ClassVar[Options] = {"name": "five"}

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> str:
            return "abcde"[index]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_each_process_asks_equally_often_whatever_it_looks_at_besides(
        self, rank: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop, asked = Interruption(1), []
        monkeypatch.setattr(stop, "together", lambda read: (asked.append(read()), asked[-1])[1])
        watched = WatchedImages(self.Five(), stop, rank, 2)
        seen = [watched[index] for index in (0, *range(rank, 5, 2), 0)]
        assert asked == (["a", "c"] if rank == 0 else ["b", "d"])
        assert seen == (list("aacea") if rank == 0 else list("abda"))

    def test_it_passes_for_the_data_set(self) -> None:
        watched = WatchedImages(self.Five(), Interruption(1), 0, 1)
        assert watched.opt == {"name": "five"}
        assert len(watched) == 5
        assert list(DataLoader(watched, batch_size=None)) == list("abcde")


class TestDamagedImages:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_one_that_turns_up_in_the_middle_saves_first(
        self, tmp_path: Path, options: Options, runner: Runner, workers: int
    ) -> None:
        options["datasets"]["train"]["num_worker_per_gpu"] = workers
        spoil = "[path.write_bytes(b'x') for path in folder.glob('data/train/SEQ_A/sharp/*')]"
        assert runner.run(options, tmp_path, prelude=_SIGNAL.format(rank=0, act=spoil)) == [1]
        (sentence,) = sentences(tmp_path)
        assert re.fullmatch(rf"error: .*SEQ_A/sharp/00000\d.png: {DAMAGED}", sentence)
        (state,) = states(tmp_path)
        assert state >= 3
        assert f"saved iteration {state}; go on with --auto_resume" in errors(tmp_path)

    def test_of_a_class_that_only_knows_exceptions_saves_first(
        self, tmp_path: Path, options: Options, runner: Runner
    ) -> None:
        folders = {
            f"dataroot_{key}": str(tmp_path / "data" / "train" / "SEQ_A" / kind)
            for key, kind in (("lq", "blur_gamma"), ("gt", "sharp"))
        }
        kept = {"gt_size": 16, "batch_size_per_gpu": 2, "num_worker_per_gpu": 1, "use_hflip": True, "use_rot": True}
        options["datasets"]["train"] = {"type": "PairedImageDataset", "io_backend": {"type": "disk"}, **folders, **kept}
        spoil = "[path.write_bytes(b'x') for path in folder.glob('data/train/SEQ_A/sharp/*')]"
        assert runner.run(options, tmp_path, prelude=_SIGNAL.format(rank=0, act=spoil), at_once=False) == [1]
        assert "saved iteration" in errors(tmp_path)
        assert len(states(tmp_path)) == 1


class TestNumbersThatAreNotFinite:
    @pytest.mark.parametrize("frequency", [2, 100_000], ids=["after saving", "before saving"])
    def test_end_the_run_and_say_what_to_go_on_from(
        self, tmp_path: Path, options: Options, runner: Runner, frequency: int
    ) -> None:
        options["logger"] |= {"print_freq": 5, "save_checkpoint_freq": frequency}
        spoil = "self.net_g.head.weight.data.fill_(float('nan'))"
        assert runner.run(options, tmp_path, prelude=_SIGNAL.format(rank=0, act=spoil)) == [1]
        (sentence,) = sentences(tmp_path)
        assert sentence.startswith("error: loss: expected finite numbers, got nan or infinity since iteration 4; ")
        hint = "Iteration 2 was saved last; --auto_resume goes on from it"
        assert (hint in errors(tmp_path)) is (frequency == 2)
        assert "resume" not in errors(tmp_path).replace(hint, "")
        assert states(tmp_path) == ([2] if frequency == 2 else [])


class TestTwoProcesses:
    def test_a_signal_to_one_saves_and_ends_both_at_the_same_iteration(
        self, tmp_path: Path, options: Options, runner: Runner
    ) -> None:
        prelude = _SIGNAL.format(rank=1, act=_TERMINATE)
        assert runner.run(options, tmp_path, processes=2, prelude=prelude) == [130, 130]
        assert states(tmp_path) == [3]
        assert "SIGTERM: saved iteration 3; go on with --auto_resume" in errors(tmp_path)
        assert errors(tmp_path, 1) == ""

    @pytest.mark.parametrize("image", [1, 3], ids=["first of its share", "last of its share"])
    def test_a_signal_to_one_ends_the_validation_of_both(
        self, tmp_path: Path, validated: Options, runner: Runner, image: int
    ) -> None:
        prelude = _VALIDATION.format(image=image, act=_TERMINATE)
        validated["train"]["total_iter"] = 100_000
        assert runner.run(validated, tmp_path, processes=2, prelude=prelude) == [130, 130]
        assert states(tmp_path) == [3]
        assert set((tmp_path / "seen").read_text().split()) == {str(number) for number in range(image + 1)}

    def test_an_odd_number_of_images_keeps_nobody_waiting(
        self, tmp_path: Path, validated: Options, runner: Runner
    ) -> None:
        for kind in ("blur_gamma", "sharp"):
            (tmp_path / "data" / "train" / "SEQ_B" / kind / "000001.png").unlink()
        validated["datasets"]["train"]["batch_size_per_gpu"] = 1
        assert runner.run(validated, tmp_path, processes=2) == [0, 0]

    @pytest.mark.parametrize("where", ["training", "validation", "first batch", "training, the other has a signal"])
    def test_an_image_that_one_cannot_read_ends_both_with_its_sentence(
        self, tmp_path: Path, validated: Options, runner: Runner, where: str
    ) -> None:
        validated["datasets"]["train"]["num_worker_per_gpu"] = 0
        prelude = f"""
import os, signal
from reblur_plugin.data.images import ImageError
from reblur_plugin.data.pair_dataset import DeblurPairDataset
whole = DeblurPairDataset.__getitem__
def item(self, draw):
    number = getattr(draw, "number", None)
    where = "validation" if number is None else "first batch" if number < 4 else "training"
    if rank == 0 and "other" in {where!r} and where == "training" and number >= 8:
        os.kill(os.getpid(), signal.SIGTERM)
    if rank == 1 and {where!r}.startswith(where) and (number is None or number < 4 or number >= 8):
        raise ImageError("x.png: can't be read")
    return whole(self, draw)
DeblurPairDataset.__getitem__ = item
"""
        assert runner.run(validated, tmp_path, processes=2, prelude=prelude) == [1, 1]
        assert [sentences(tmp_path, rank) for rank in (0, 1)] == [["error: x.png: can't be read"]] * 2
        if where == "first batch":
            assert not (tmp_path / "experiments").exists()
        else:
            assert states(tmp_path) == [3 if where == "validation" else 2]
