"""The command lines: quick help, and one sentence for everything that a user can get wrong, before anything is made."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from reblur_plugin import cli, host, reblurability, test, train
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.data import __main__ as data
from reblur_plugin.engine import testing, training
from reblur_plugin.errors import ReblurError
from reblur_plugin.options.reading import Options

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ["train", "test"]
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO: ")


class Place:
    """An empty working folder; beside it two pairs of 32x24 pixels, two tiny networks and options in order."""

    def __init__(self, folder: Path) -> None:
        self.data, self.cwd, self.file = folder / "data", folder / "cwd", folder / "options.yml"
        self.cwd.mkdir()
        for kind in ("blur_gamma", "sharp"):
            (self.data / "a" / kind).mkdir(parents=True)
            for number in (1, 2):
                Image.fromarray(np.full((24, 32, 3), 99, dtype=np.uint8)).save(self.data / "a" / kind / f"{number}.png")
        networks = {"g": ResUNet(num_blocks=1, num_feats=(2, 2, 2)), "r": ReblurNet(num_blocks=1, num_feat=2)}
        for label, network in networks.items():
            torch.save({"params": network.state_dict()}, folder / f"{label}.pth")
        pairs = {"type": "DeblurPairDataset", "dataroot": str(self.data)}
        self.options: Options = {
            "name": "x",
            "model_type": "ReblurModel",
            "num_gpu": 0,
            "datasets": {"train": {**pairs, "gt_size": 16, "batch_size_per_gpu": 2}, "val": dict(pairs)},
            "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [2, 2, 2]},
            "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 2},
            "path": {f"pretrain_network_{label}": str(folder / f"{label}.pth") for label in networks},
            "train": {
                "total_iter": 1,
                "optim_g": {"type": "Adam", "lr": 1e-4},
                "optim_r": {"type": "Adam", "lr": 1e-4},
                "scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.5},
                "pixel_opt": {"type": "MultiScaleL1Loss"},
                "reblur_opt": {"loss_weight": 1.0},
            },
            "logger": {"print_freq": 1, "save_checkpoint_freq": 1},
        }

    def write(self, options: Options | None = None) -> None:
        self.file.write_text(yaml.safe_dump(options or self.options), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def error_of(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command in the empty folder and gives its one sentence on stderr."""

    def run(program: str, *arguments: str, write: bool = True) -> str:
        if write:
            place.write()
        monkeypatch.chdir(place.cwd)
        monkeypatch.setattr(sys, "argv", [program, "-opt", str(place.file), *arguments])
        assert cli.guarded({"train": train, "test": test}[program].main) == 1
        output, errors = capsys.readouterr()
        assert output == ""
        assert list(place.cwd.iterdir()) == []
        *log, sentence = errors.splitlines()
        assert all(LOG_LINE.match(line) for line in log)  # what was built until then
        assert sentence.startswith("error: ")
        return sentence.removeprefix("error: ")

    return run


@pytest.fixture
def fresh_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let BasicSR set up its logger as in a new process; it would keep stderr and level of an earlier test."""
    host.prepare()
    from basicsr.utils import logger as module

    logger = logging.getLogger("basicsr")
    level = logger.level
    monkeypatch.setattr(module, "initialized_logger", {})
    monkeypatch.setattr(logger, "handlers", [])
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


def interpreter(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


class TestHelp:
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_it_names_the_command_its_options_and_an_example(self, program: str) -> None:
        text = " ".join(interpreter("-m", f"reblur_plugin.{program}", "--help").stdout.split())
        assert text.startswith(f"usage: python -m reblur_plugin.{program}")
        for word in ("--opt", "--launcher", "--force_yml", f"example: python -m reblur_plugin.{program} -opt options/"):
            assert word in text
        assert ("--auto_resume" in text) is (program == "train")

    @pytest.mark.parametrize("program", PROGRAMS)
    @pytest.mark.parametrize("arguments", [["--help"], ["-opt", "none.yml"]], ids=["help", "error"])
    def test_torch_is_not_imported(self, program: str, arguments: list[str]) -> None:
        code = (
            f"import runpy, sys; sys.argv = {['x', *arguments]!r}\n"
            f"try: runpy.run_module('reblur_plugin.{program}', run_name='__main__')\n"
            "finally: assert not {'torch', 'basicsr', 'numpy'} & set(sys.modules)"
        )
        finished = interpreter("-c", code)
        assert "AssertionError" not in finished.stderr
        assert finished.returncode == (0 if arguments == ["--help"] else 1)

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_the_example_is_an_option_file_that_is_there(self, program: str) -> None:
        words = interpreter("-m", f"reblur_plugin.{program}", "--help").stdout.split()
        assert (ROOT / words[words.index("-opt", words.index("example:")) + 1]).is_file()


class TestProcess:
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_an_error_is_one_line_on_stderr_and_exit_code_1(self, program: str, tmp_path: Path) -> None:
        finished = interpreter("-m", f"reblur_plugin.{program}", "-opt", "none.yml", cwd=tmp_path)
        assert finished.returncode == 1
        assert finished.stdout == ""
        assert finished.stderr.startswith("error: none.yml: expected an option file, but it can't be read (")
        assert finished.stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "arguments", [[], ["-opt"], ["-opt", "x.yml", "--launcher", "mpi"], ["-opt", "x.yml", "--lr", "1"]]
    )
    def test_a_wrong_command_line_shows_its_usage(self, arguments: list[str]) -> None:
        finished = interpreter("-m", "reblur_plugin.train", *arguments)
        assert finished.returncode == 2
        assert finished.stderr.startswith("usage: python -m reblur_plugin.train")


class TestGuarded:
    def test_the_commands_own_code_is_handed_on(self) -> None:
        assert cli.guarded(lambda: 130) == 130

    def test_what_a_user_can_cause_is_one_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        def fail() -> int:
            raise ReblurError("what: expected x, got y; do z")

        assert cli.guarded(fail) == 1
        assert capsys.readouterr() == ("", "error: what: expected x, got y; do z\n")

    def test_ctrl_c_is_no_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        def stop() -> int:
            raise KeyboardInterrupt

        assert cli.guarded(stop) == 130
        assert capsys.readouterr() == ("", "stopped\n")

    def test_a_fault_of_our_own_keeps_its_traceback(self) -> None:
        def fault() -> int:
            raise TypeError("ours")

        with pytest.raises(TypeError, match="ours"):
            cli.guarded(fault)


class TestArguments:
    def test_basicsrs_command_line_is_understood(self) -> None:
        words = ["-opt", "x.yml", "--launcher", "pytorch", "--local_rank", "1", "--force_yml", "a:b=1", "c=2"]
        arguments = cli.parser("train", "", "").parse_args(words)
        assert arguments.opt == Path("x.yml")
        assert arguments.launcher == "pytorch"
        assert arguments.force_yml == ["a:b=1", "c=2"]
        assert cli.parser("train", "", "").parse_args(["--opt", "x.yml", "--local-rank=1"]).local_rank == 1

    def test_forced_values_are_in_the_options_and_checked(self, place: Place) -> None:
        place.write()
        words = ["-opt", str(place.file), "--force_yml", "train:total_iter=7", "name=forced"]
        options = cli.read_options(cli.parser("train", "", "").parse_args(words), is_train=True)
        assert options["train"]["total_iter"] == 7
        assert options["name"] == "forced"


# Each case: a change of the options (`block:key=value`), and how the sentence begins; {} is the data's folder.
EARLY = [
    ("name=a/b", "name: expected letters, digits, _ . + -, got 'a/b'"),
    ("train:totl_iter=5", "train: totl_iter: unknown key; did you mean total_iter"),
    ("train:total_iter=0", "train: total_iter: expected a whole number > 0, got 0"),
    ("path:pretrain_network_g=none.pth", "path: pretrain_network_g: no such file none.pth"),
    (
        "datasets:train:layout=GOPRO",
        "datasets: train: layout: expected one of gopro, reds, hide, realblur, folders, photographs, packed, got",
    ),
    ("datasets:train:gt_size=0", "datasets: train: gt_size: expected a whole number > 0, got 0"),
    ("val:tta:steps=-1", "val: tta: steps: expected a whole number >= 0, got -1"),
    ("name", "--force_yml name: expected block:key=value"),
    ("name=!!python/name:os.system", "--force_yml name=!!python/name:os.system, line 1: expected plain YAML"),
]
LATE = [
    ("model_type=SRModle", "model_type: nothing is registered as 'SRModle'; did you mean SRModel"),
    ("network_g:type=ResUnet", "network_g: type: nothing is registered as 'ResUnet'; did you mean ResUNet"),
    ("network_r:num_block=3", "network_r: num_block: unknown key; did you mean num_blocks"),
    ("datasets:train:dataroot=none", "none: no such folder; expected the sequences of GOPRO_Large"),
    ("datasets:train:blur_key=blur", "{}/a: expected a folder 'blur', found blur_gamma; set blur_key to one of them"),
    (
        "datasets:train:batch_size_per_gpu=3",
        "datasets: train: batch_size_per_gpu: expected at most the 2 images there are, got 3",
    ),
    ("num_gpu=99", "num_gpu: expected at most "),
]


@pytest.mark.usefixtures("fresh_logger")
class TestErrors:
    @pytest.mark.parametrize(("entry", "start"), EARLY + LATE)
    def test_training_says_what_is_wrong_and_makes_nothing(
        self, place: Place, error_of: Callable[..., str], entry: str, start: str
    ) -> None:
        place.options["val"] = {"val_freq": 1}
        assert error_of("train", "--force_yml", entry).startswith(start.format(place.data))

    @pytest.mark.parametrize(
        ("entry", "start"),
        [case for case in EARLY + LATE if "train:" not in case[0]]
        + [
            ("datasets:val:dataroot=none", "none: no such folder; expected the sequences of GOPRO_Large"),
            ("datasets={}", "datasets: expected a block test_... or val, got none"),
        ],
    )
    def test_testing_says_what_is_wrong_and_makes_nothing(
        self, place: Place, error_of: Callable[..., str], entry: str, start: str
    ) -> None:
        assert error_of("test", "--force_yml", entry).startswith(start.format(place.data))

    @pytest.mark.parametrize("program", PROGRAMS)
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "expected keys and values, got NoneType"),
            ("name: x\nname: y\n", ", line 2: expected plain YAML, but the key 'name' stands twice"),
            ("a: !!python/object/apply:os.mkdir [made]\n", ", line 1: expected plain YAML, but could not determine"),
            ("_base_: none.yml\n", "none.yml: expected an option file, but it can't be read"),
        ],
    )
    def test_a_broken_option_file_is_named(
        self, place: Place, error_of: Callable[..., str], program: str, text: str, problem: str
    ) -> None:
        place.file.write_text(text)
        sentence = error_of(program, write=False)
        assert str(place.file.parent) in sentence
        assert problem in sentence

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_a_damaged_checkpoint_is_named(self, place: Place, error_of: Callable[..., str], program: str) -> None:
        checkpoint = place.file.with_name("g.pth")
        checkpoint.write_bytes(b"PK\x03\x04 half of a file")
        assert error_of(program) == f"{checkpoint}: damaged or no checkpoint of PyTorch; copy or download it again"

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_a_checkpoint_of_another_network_is_named(
        self, place: Place, error_of: Callable[..., str], program: str
    ) -> None:
        checkpoint = place.file.with_name("r.pth")
        torch.save({"params": {"weight": torch.ones(1)}}, checkpoint)
        assert error_of(program).startswith(f"{checkpoint}: doesn't fit ReblurNet with ")

    def test_a_missing_partner_is_named(self, place: Place, error_of: Callable[..., str]) -> None:
        (place.data / "a" / "sharp" / "2.png").unlink()
        for program in PROGRAMS:
            assert error_of(program) == (
                f"{place.data}/a/blur_gamma/2.png: no partner of that name in {place.data}/a/sharp; "
                "unzip again or remove it"
            )

    def test_a_second_force_yml_adds_to_the_first(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.write()
        words = ["--force_yml", "name=a", "manual_seed=3", "--force_yml", "train:total_iter=7"]
        taken: list[Options] = []
        monkeypatch.setattr(training, "train", lambda *given: taken.append(given[0]))
        monkeypatch.setattr(sys, "argv", ["train", "-opt", str(place.file), *words])
        train.main()
        assert (taken[0]["name"], taken[0]["manual_seed"], taken[0]["train"]["total_iter"]) == ("a", 3, 7)

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_several_processes_need_torchrun(
        self, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch, program: str
    ) -> None:
        monkeypatch.delenv("RANK", raising=False)
        sentence = error_of(program, "--launcher", "pytorch")
        assert sentence.startswith("--launcher pytorch: expected to be started by torchrun; use torchrun -m")

    @pytest.mark.parametrize(
        ("launcher", "variables"),
        [
            ("none", {}),
            ("none", {"RANK": "0", "WORLD_SIZE": "1"}),
            ("pytorch", {"RANK": "1", "WORLD_SIZE": "2"}),
            ("slurm", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}),
            ("none", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}),  # sbatch's own shell, without srun
            ("pytorch", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "RANK": "0", "WORLD_SIZE": "8"}),
        ],
    )
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_the_launcher_is_taken_from_the_environment(
        self,
        place: Place,
        monkeypatch: pytest.MonkeyPatch,
        program: str,
        launcher: str,
        variables: dict[str, str],
    ) -> None:
        taken: list[str] = []
        for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        place.write()
        monkeypatch.setattr(training, "train", lambda *given: taken.append(given[2]))
        monkeypatch.setattr(testing, "test", lambda *given: taken.append(given[2]))
        for words in ([], ["--launcher", "none"]):
            monkeypatch.setattr(sys, "argv", [program, "-opt", str(place.file), *words])
            {"train": train, "test": test}[program].main()
        assert taken == [launcher, "none"]

    @pytest.mark.parametrize(
        ("program", "words"),
        [
            (reblurability, ["a.png", "--weights", "r.pth"]),
            (data, ["check", "a"]),
            (data, ["pack", "a", "b"]),
            (data, ["synthesise", "a", "b"]),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_what_one_process_does_is_refused_in_several(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: Any, words: list[str]
    ) -> None:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setattr(sys, "argv", ["", *words])
        assert cli.guarded(program.main) == 1
        assert capsys.readouterr().err.endswith(
            ": expected one process, got 4 of torchrun; start it without torchrun\n"
        )

    def test_adaptation_without_a_reblurring_network_is_refused(
        self, place: Place, error_of: Callable[..., str]
    ) -> None:
        del place.options["network_r"]
        place.options["val"] = {"tta": {"steps": 1}}
        assert error_of("test").startswith("val: tta: needs M_R; add network_r")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_damaged_image_is_one_sentence_from_workers_too(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: int
    ) -> None:
        (place.data / "a" / "sharp" / "2.png").write_bytes(b"")
        place.options["datasets"]["train"]["num_worker_per_gpu"] = workers
        place.write()
        monkeypatch.chdir(place.cwd)
        monkeypatch.setattr(sys, "argv", ["train", "-opt", str(place.file)])
        assert cli.guarded(train.main) == 1
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        sentence = (
            f"error: {place.data}/a/sharp/2.png: expected an image, got an empty file; unzip or download it again"
        )
        assert sentence in errors.splitlines()

    def test_a_test_without_checkpoint_is_refused(self, place: Place, error_of: Callable[..., str]) -> None:
        place.options["path"] = {}
        assert error_of("test") == (
            "path: pretrain_network_g: missing; a test needs a checkpoint, which python -m reblur_plugin.train makes"
        )


@pytest.mark.usefixtures("fresh_logger")
class TestRuns:
    @pytest.fixture
    def run(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
        """Return a function that runs a command to its end and gives its log."""

        def to_the_end(program: str) -> str:
            place.write()
            monkeypatch.chdir(place.cwd)
            monkeypatch.setattr(sys, "argv", [program, "-opt", str(place.file)])
            assert cli.guarded({"train": train, "test": test}[program].main) == 0
            (log,) = place.cwd.glob(f"*/x/{program}_x_*.log")
            return log.read_text(encoding="utf-8")

        return to_the_end

    @pytest.mark.parametrize(("program", "folder"), [("train", "experiments"), ("test", "results")])
    def test_the_options_of_these_tests_are_in_order(
        self, place: Place, run: Callable[[str], str], program: str, folder: str
    ) -> None:
        # so that what makes a case above fail is the one change that it makes
        run(program)
        assert [path.name for path in place.cwd.iterdir()] == [folder]

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_the_log_says_which_weights_were_loaded(
        self, place: Place, run: Callable[[str], str], program: str
    ) -> None:
        log = run(program)
        for label in ("g", "r"):
            assert f"Loaded net_{label} from {place.file.with_name(label)}.pth (params" in log


class TestCommands:
    def test_the_package_lists_its_commands_in_a_blink(self) -> None:
        code = (
            "import runpy, sys\n"
            "try: runpy.run_module('reblur_plugin', run_name='__main__')\n"
            "finally: assert not {'torch', 'basicsr', 'numpy'} & set(sys.modules)"
        )
        finished = interpreter("-c", code)
        assert finished.returncode == 0
        listed = set(re.findall(r"python -m reblur_plugin\.(\w+)", finished.stdout))
        package = ROOT / "reblur_plugin"
        files = [*package.glob("*.py"), *package.glob("*/__main__.py")]
        runnable = [path for path in files if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")]
        names = {path.parent.name if path.name == "__main__.py" else path.stem for path in runnable}
        assert listed == names - {"reblur_plugin"}
