"""All that needs no POSIX runs where there is none: as far as Linux can play Windows, by taking things away.

What this can't show: paths with backslashes, files that are kept by who has them open, GPUs under Windows.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PACKAGE = Path(__file__).resolve().parents[1] / "reblur_plugin"

# A system without POSIX, whose processes are started by spawn; then each command's words, by line.
JOB = """
import importlib, multiprocessing, os, pkgutil, signal, sys
import platformdirs, torch  # which know what system this is

platformdirs.user_cache_path()

MISSING = {"resource", "fcntl", "pwd", "grp", "termios", "posix_ipc"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in MISSING:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
from multiprocessing import resource_tracker
resource_tracker._HAVE_SIGMASK = False  # Python's own, which has looked already
for place, names in (
    (os, "register_at_fork fork forkpty killpg getpgid setsid getuid geteuid sched_getaffinity chown link mkfifo"),
    (signal, "pthread_sigmask pthread_kill SIGHUP SIGUSR1 SIGUSR2 SIGALRM alarm setitimer sigwait"),
):
    for name in names.split():
        delattr(place, name)

def main():
    multiprocessing.set_start_method("spawn")
    import reblur_plugin
    for module in pkgutil.walk_packages(reblur_plugin.__path__, "reblur_plugin."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from reblur_plugin import cli
    for line in open(sys.argv[1], encoding="utf-8"):
        name, *words = line.split()
        program = importlib.import_module(f"reblur_plugin.{name}")
        sys.argv = [name, *words]
        print(name, cli.guarded(program.main), flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def option_files(tmp_path: Path, tiny_options: dict[str, Any]) -> Path:
    """Return the folder of the options of a training, train.yml and longer.yml, and of its test, test.yml."""
    tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 1
    (tmp_path / "train.yml").write_text(yaml.safe_dump(tiny_options))
    tiny_options["train"]["total_iter"] = 4
    (tmp_path / "longer.yml").write_text(yaml.safe_dump(tiny_options))
    models = tmp_path / "experiments" / "tiny" / "models"
    tested = {key: tiny_options[key] for key in ("name", "model_type", "num_gpu", "network_g", "network_r", "val")}
    tested["datasets"] = {"test": {**tiny_options["datasets"]["val"], "name": "set"}}
    tested["path"] = {f"pretrain_network_{label}": str(models / f"net_{label}_latest.pth") for label in "gr"}
    tested["val"] = {**tested["val"], "tta": {"steps": 1}}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tested))
    return tmp_path


def test_every_command_runs_without_posix(option_files: Path, tiny_data: Path) -> None:
    models, image = "experiments/tiny/models", tiny_data / "test/SEQ_A/blur_gamma/000000.png"
    commands = [
        f"data.__main__ check {tiny_data}/train",
        f"data.__main__ pack {tiny_data}/train packed",
        f"data.__main__ synthesise {tiny_data}/test/SEQ_A/sharp shaken --shake 2-3",
        "check -opt train.yml",
        "train -opt train.yml",
        "train -opt longer.yml --auto_resume",
        "test -opt test.yml",
        f"deblur {image} -o sharp --weights {models}/net_g_latest.pth --steps 1",
        f"deblur {image} -o by_name",
        "weights list",
        f"reblurability {image} --weights {models}/net_r_latest.pth",
    ]
    (option_files / "commands").write_text("\n".join(commands))
    (option_files / "job.py").write_text(JOB)
    command = [sys.executable, "-W", "ignore", "job.py", "commands"]
    found = subprocess.run(command, cwd=option_files, capture_output=True, text=True, check=False)
    codes = [line for line in found.stdout.splitlines() if line in {f"{name.split()[0]} 0" for name in commands}]
    assert codes == [f"{name.split()[0]} 0" for name in commands], found.stderr[-3000:]
    assert (option_files / models / "net_g_4.pth").exists()


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def test_text_files_have_one_encoding_everywhere() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for call in calls(path):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
            is_text = name in ("read_text", "write_text") or (
                name == "open" and any(m in ("r", "w", "a", "a+") for m in modes)
            )
            if is_text and "encoding" not in {keyword.arg for keyword in call.keywords}:
                found.append(f"{path.name}:{call.lineno}")
    assert found == []
