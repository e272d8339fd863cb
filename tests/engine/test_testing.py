"""A test that ends early goes on where it stopped, to the results of an unbroken one; any other starts anew."""

from __future__ import annotations

import copy
import csv
import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Runner, errors, is_alive, until

from reblur_plugin import checkpoints
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.core.boundary import NetworkError
from reblur_plugin.core.choices import AdaptError
from reblur_plugin.data.images import write_image
from reblur_plugin.engine import testing
from reblur_plugin.evaluation import variants
from reblur_plugin.evaluation.records import Record, read_runs
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options.reading import OptionError

IMAGES, MOST = 20, 8  # of the whole test, and of a process that is killed
Options = dict[str, Any]


@pytest.fixture
def options(tmp_path: Path, rng: np.random.Generator) -> Options:
    """Options of a test of small images with adaptation, by networks as they are initialised."""
    for index in range(IMAGES):
        sharp = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        write_image(tmp_path / "sharp" / f"{index:02d}.png", sharp)
        write_image(tmp_path / "blurry" / f"{index:02d}.png", (sharp // 2 + np.roll(sharp, 1, 1) // 2).astype(np.uint8))
    networks = {"g": ResUNet(1, (4, 4, 4)), "r": ReblurNet(1, 4)}
    for label, network in networks.items():
        checkpoints.save({"params": network.state_dict()}, tmp_path / f"net_{label}.pth")
    return {
        "name": "tiny",
        "model_type": "ReblurModel",
        "num_gpu": 0,
        "datasets": {
            "test": {
                "name": "set",
                "type": "DeblurPairDataset",
                "layout": "folders",
                "dataroot_lq": str(tmp_path / "blurry"),
                "dataroot_gt": str(tmp_path / "sharp"),
            }
        },
        "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
        "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
        "path": {f"pretrain_network_{label}": str(tmp_path / f"net_{label}.pth") for label in networks},
        "val": {
            "tta": {"steps": 3, "lr": 1e-3},
            "adapted_steps": [1],
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}, "ssim": {"type": "reblur_ssim"}},
        },
    }


# A process finishes so many images at most; the second one reads the journal late.
HELD = """
import time
from reblur_plugin.evaluation.journal import Journal
add, entries, noted = Journal.add, Journal.entries, []
def held(journal, dataset, entry):
    while len(noted) == {most}:
        time.sleep(1)
    noted.append(entry)
    add(journal, dataset, entry)
def late(journal, dataset):
    time.sleep(2 * (journal.rank == 1))
    return entries(journal, dataset)
Journal.add, Journal.entries = held, late
"""


def interrupt(runner: Runner, options: Options, folder: Path, number: signal.Signals, processes: int = 1) -> list[Any]:
    """Send a signal to all processes of a test once each has finished at least three images; return the exit codes."""
    runner.start(options, folder, processes, prelude=HELD.format(most=MOST), program="test")
    journals = [folder / "results" / "tiny" / "journal" / f"{rank}.jsonl" for rank in range(processes)]

    def is_time() -> bool:
        assert all(map(is_alive, runner.children)), [errors(folder, rank) for rank in range(processes)]
        return all(path.exists() and path.read_bytes().count(b"}\n") > 2 for path in journals)

    until(is_time)
    for process in runner.children:
        os.kill(process, number)
    return runner.wait()


def finish(runner: Runner, options: Options, folder: Path, processes: int = 1) -> str:
    """Run a test to its end; return what its first process says."""
    prelude = HELD.format(most=IMAGES)
    assert runner.run(options, folder, processes, prelude=prelude, program="test") == [0] * processes, errors(folder)
    return errors(folder)


def tables(results: Path) -> tuple[str, list[list[str]]]:
    """Return the text of the scores, and the trace without its seconds."""
    trace = [line.split(",") for line in (results / "set_trace.csv").read_text().splitlines()]
    return (results / "set.csv").read_text(), [cells[:4] + cells[5:] for cells in trace]


def recorded(results: Path) -> list[Record]:
    """Return the records of a run without its name and seconds."""
    (run,) = read_runs(results)
    return [replace(record, run="", seconds=None) for record in run.records]


def pictures(results: Path) -> dict[str, bytes]:
    folder = results / "visualization"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def unbroken(options: Options, tmp_path: Path) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `runner` does: results are bit for bit those of the same number of threads
    assert testing.test(copy.deepcopy(options) | {"name": "unbroken"}, tmp_path)
    torch.set_num_threads(threads)
    return tmp_path / "results" / "unbroken"


class TestGoingOn:
    def test_a_killed_test_ends_with_the_results_of_an_unbroken_one(
        self, options: Options, tmp_path: Path, unbroken: Path, runner: Runner
    ) -> None:
        results = tmp_path / "results" / "tiny"
        assert interrupt(runner, options, tmp_path, signal.SIGKILL) == [-signal.SIGKILL]
        written = {path: path.stat().st_mtime_ns for path in (results / "visualization").rglob("*.png")}
        done = (results / "journal" / "0.jsonl").read_text().count("}\n")
        assert 3 <= done <= MOST
        (results / "visualization" / "set" / ".19.png.1.part").touch()  # of a kill within a picture
        assert f"Going on with the unfinished test in {results}" in finish(runner, options, tmp_path)
        assert tables(results) == tables(unbroken)
        assert pictures(results) == pictures(unbroken)
        assert recorded(results) == recorded(unbroken)
        kept = [path for path, changed in written.items() if path.stat().st_mtime_ns == changed]
        assert len(kept) >= 3 * done  # nothing that was finished has been made again
        assert not (results / "journal").exists()
        assert [path.name for path in results.parent.iterdir() if "archived" in path.name] == []

    def test_two_processes_and_then_three_end_with_the_results_of_one(
        self, options: Options, tmp_path: Path, unbroken: Path, runner: Runner
    ) -> None:
        results = tmp_path / "results" / "tiny"
        assert interrupt(runner, options, tmp_path, signal.SIGKILL, processes=2) == [-signal.SIGKILL] * 2
        finish(runner, options, tmp_path, processes=3)
        assert recorded(results) == recorded(unbroken)
        assert tables(results) == tables(unbroken)
        assert pictures(results) == pictures(unbroken)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_with_one_line(
        self, options: Options, tmp_path: Path, runner: Runner, number: signal.Signals
    ) -> None:
        results = tmp_path / "results" / "tiny"
        assert interrupt(runner, options, tmp_path, number) == [130]
        said, done = errors(tmp_path), (results / "journal" / "0.jsonl").read_text().count("}\n")
        assert f"{number.name}: {done} of {IMAGES} images are done; the same command goes on from there" in said
        assert "Traceback" not in said
        assert list(results.rglob("*.part")) == []


class TestRecords:
    def test_there_is_one_for_each_image_and_stage_with_all_that_it_depends_on(
        self, options: Options, unbroken: Path
    ) -> None:
        (run,) = read_runs(unbroken)
        stages = ["deblurred", "adapted_1", "adapted"]
        assert [(one.image, one.stage) for one in run.records] == [
            (f"{index:02d}", stage) for index in range(IMAGES) for stage in stages
        ]
        one = run.records[1]
        assert (one.step, one.blur_kind, one.reference) == (1, "unknown", "sharp")
        assert {name: score.variant.label for name, score in one.scores.items()} == {
            "psnr": "PSNR (RGB, 8 bits)",
            "ssim": "SSIM (Gaussian 11x11, each channel)",
        }
        files = {f"pretrain_network_{label}": Path(options["path"][f"pretrain_network_{label}"]) for label in "gr"}
        assert one.weights == {key: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for key, path in files.items()}
        assert one.versions["torch"] == torch.__version__
        assert one.picture == "visualization/set/00_adapted_1.png"
        assert (unbroken / one.picture).is_file()
        assert Path(str(one.sharp)).name == "00.png"
        assert one.pixels.keys() == {"blurry", "sharp"}

    def test_their_scores_are_those_of_the_tables(self, unbroken: Path) -> None:
        with (unbroken / "set.csv").open(encoding="utf-8") as file:
            rows = {(row["image"], row["stage"]): float(row["psnr"]) for row in csv.DictReader(file)}
        (run,) = read_runs(unbroken)
        assert {(one.image, one.stage): one.scores["psnr"].value for one in run.records} == rows

    def test_a_killed_test_has_those_of_the_images_that_it_finished(
        self, options: Options, tmp_path: Path, runner: Runner
    ) -> None:
        assert interrupt(runner, options, tmp_path, signal.SIGKILL) == [-signal.SIGKILL]
        (run,) = read_runs(tmp_path / "results" / "tiny")
        assert (run.name, run.finished) == ("tiny", False)
        assert 3 * 3 <= len(run.records) <= 3 * MOST


class TestStartingAnew:
    """An unfinished test goes on only if it is the same one; what is there moves aside otherwise."""

    @pytest.fixture
    def unfinished(self, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        with monkeypatch.context() as patched:
            calls = iter(range(3))

            def adapt(model: ReblurModel, blurry: torch.Tensor, original: Any = ReblurModel.adapt) -> Any:
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return original(model, blurry)

            patched.setattr(ReblurModel, "adapt", adapt)
            assert not testing.test(copy.deepcopy(options), tmp_path)
        return tmp_path / "results" / "tiny"

    def log(self, results: Path) -> str:
        return "".join(path.read_text() for path in results.glob("test_tiny_*.log"))

    def archived(self, results: Path) -> list[Path]:
        return list(results.parent.glob("tiny_archived_*"))

    def test_the_same_test_goes_on(self, options: Options, tmp_path: Path, unfinished: Path) -> None:
        assert testing.test(options, tmp_path)
        assert self.archived(unfinished) == []
        assert "Going on with the unfinished test" in self.log(unfinished)

    def test_stored_options_say_which_way_metrics_point(self, unfinished: Path) -> None:
        stored = yaml.safe_load((unfinished / "tiny.yml").read_text())
        assert stored["val"]["metrics"] == {
            "psnr": {"type": "calculate_psnr", "crop_border": 0, "better": "higher"},
            "ssim": {"type": "reblur_ssim", "better": "higher"},
        }

    def test_with_other_options(self, options: Options, tmp_path: Path, unfinished: Path) -> None:
        options["val"]["tta"]["lr"] = 2e-3
        assert testing.test(options, tmp_path)
        assert len(self.archived(unfinished)) == 1
        assert "moved aside, since it is unfinished, but of other options" in self.log(unfinished)

    @pytest.mark.parametrize("label", ["g", "r"])
    def test_with_another_checkpoint_in_the_place_of_the_old(
        self, options: Options, tmp_path: Path, unfinished: Path, label: str
    ) -> None:
        path = tmp_path / f"net_{label}.pth"
        weights = checkpoints.state_dict(path)
        next(iter(weights.values())).view(-1)[0] += 1e-6
        checkpoints.save({"params": weights}, path)
        assert testing.test(options, tmp_path)
        assert len(self.archived(unfinished)) == 1
        assert "but of other checkpoints" in self.log(unfinished)

    def test_with_other_data(self, options: Options, tmp_path: Path, unfinished: Path) -> None:
        for kind in ("blurry", "sharp"):
            (tmp_path / kind / f"{IMAGES - 1}.png").unlink()
        assert testing.test(options, tmp_path)
        assert len(self.archived(unfinished)) == 1
        assert "but of other data" in self.log(unfinished)

    def test_with_another_version(
        self, options: Options, tmp_path: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(variants, "__version__", "9.9")
        assert testing.test(options, tmp_path)
        assert "but of other versions" in self.log(unfinished)

    def test_on_another_device(
        self, options: Options, tmp_path: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identity = testing._identity
        monkeypatch.setattr(testing, "_identity", lambda *given: identity(*given[:2], torch.device("meta")))
        assert testing.test(options, tmp_path)
        assert "but of other device" in self.log(unfinished)

    def test_after_a_finished_one(self, options: Options, tmp_path: Path, unbroken: Path) -> None:
        before = pictures(unbroken), tables(unbroken)
        assert testing.test(options | {"name": "unbroken"}, tmp_path)
        (archived,) = unbroken.parent.glob("unbroken_archived_*")
        assert (pictures(archived), tables(archived)) == before
        log = "".join(path.read_text() for path in unbroken.glob("*.log"))
        assert "moved aside, since it is finished" in log


class TestBeforeAFolderIsTouched:
    def test_a_network_of_another_scale_is_refused(self, options: Options, tmp_path: Path, unbroken: Path) -> None:
        before = sorted(tmp_path.rglob("*"))
        options |= {"name": "unbroken", "network_g": {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 2}}
        del options["val"]["tta"], options["val"]["adapted_steps"]
        from basicsr.archs.srresnet_arch import MSRResNet

        network = MSRResNet(num_feat=4, num_block=1, upscale=2)
        checkpoints.save({"params": network.state_dict()}, tmp_path / "net_g.pth")
        with pytest.raises(
            NetworkError, match=r"network_g: MSRResNet: expected an image of its input's shape \(1, 3, 24, 32\)"
        ):
            testing.test(options, tmp_path)
        assert sorted(tmp_path.rglob("*")) == before

    def test_too_small_a_bound_of_memory_is_refused_before(self, options: Options, tmp_path: Path) -> None:
        options["val"]["tta"]["max_memory"] = 1
        with pytest.raises(AdaptError, match=r"max_memory: expected more than .* for 32x24 pixels"):
            testing.test(options, tmp_path)
        assert not (tmp_path / "results").exists()

    def test_a_data_set_that_cant_take_its_options_is_one_sentence(self, options: Options, tmp_path: Path) -> None:
        options["datasets"]["test"] = {"type": "PairedImageDataset", "dataroot_lq": str(tmp_path / "blurry")}
        with pytest.raises(OptionError, match="datasets: test: PairedImageDataset can't take these options: KeyError"):
            testing.test(options, tmp_path)
        assert not (tmp_path / "results").exists()
