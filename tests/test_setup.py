"""The set-up: setup.py, scripts/*.sh and the shim that lets BasicSR build. Nothing is installed here."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import reblur_plugin

ROOT = Path(__file__).resolve().parents[1]
SHELL_SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
_LONG = 900  # seconds: for something that hangs, never for something slow
ASKED = ["setup.py", "pyproject.toml", "scripts/setup.sh", "scripts/build_shim/sitecustomize.py"]

# Answers as an interpreter would to each call of setup.sh, and writes the calls down.
FAKE_PYTHON = r"""#!/bin/sh
printf '%s\n' "PYTHONPATH=$PYTHONPATH $*" >>"$CALLS"
case "$*" in
    *version_info*) echo "${VERSION:-3.12.1}" ;;
    *_base_executable*) echo "$BASE" ;;
    *ensurepip*) exit "${NO_VENV:-0}" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install "*"${FAILING:-nothing}"*) echo "no network" >&2; exit 1 ;;
    "-I - "*) cat >/dev/null; echo "${FINGERPRINT:-of the files}" ;;
esac
"""


class Clone:
    """A copy of the set-up's files in a folder with a space, beside an interpreter that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        for name in ASKED:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)
        self.calls = folder / "calls"

    def setup(self, **variables: object) -> subprocess.CompletedProcess[str]:
        """Run setup.sh with no environment active but for what `variables` say."""
        self.calls.write_text("")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CONDA_") and name not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        given = {"PYTHON": self.python, "BASE": self.python, "CALLS": self.calls, **variables}
        return subprocess.run(
            [self.root / "scripts" / "setup.sh"],
            env=kept | {name: str(value) for name, value in given.items()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONG,
        )

    def installed(self) -> list[str]:
        """Return the pip calls of the last run, `PYTHONPATH=<value> <last argument>` each."""
        pip = [line for line in self.calls.read_text().splitlines() if "-m pip install" in line]
        return [f"{line.split(' -m ')[0]} {line.rsplit(' ', 1)[1]}" for line in pip]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


class TestSetupPy:
    tree = ast.parse((ROOT / "setup.py").read_text())

    def test_imports_setuptools_only(self) -> None:
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [getattr(node, "module", None) for node in imports] == ["setuptools"]

    def test_runs_nothing_but_setup(self) -> None:
        called = {ast.unparse(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
        assert called == {"setup", "find_packages"}

    def test_version_is_the_packages(self) -> None:
        versions = [ast.literal_eval(n.value) for n in ast.walk(self.tree) if getattr(n, "arg", None) == "version"]
        assert versions == [reblur_plugin.__version__]


def run_with_shim(code: str, shim: bool = True) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": str(ROOT / "scripts" / "build_shim")} if shim else {}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], env=kept | path, capture_output=True, text=True, timeout=_LONG)


class TestBuildShim:
    # BasicSR's setup.py in three lines
    get_version = "def get_version():\n    exec(\"__version__ = '1.4.2'\")\n    return locals()['__version__']\n"

    def test_exec_shows_in_the_callers_locals(self) -> None:
        assert run_with_shim(self.get_version + "print(get_version())").stdout == "1.4.2\n"

    def test_python_needs_it_from_3_13_on(self) -> None:
        result = run_with_shim(self.get_version + "get_version()", shim=False)
        assert ("KeyError: '__version__'" in result.stderr) == (sys.version_info >= (3, 13))

    def test_other_uses_of_exec_stay_as_they_are(self) -> None:
        uses = {
            "module": "exec('x = 1'); print(x)",
            "class": "class A:\n    exec('x = 1')\nprint(A.x)",
            "given globals": "x = 0\ndef f():\n    g, l = {}, {}; exec('x = 1', g); exec('x = 0', g, l)\n"
            "    return g['x']\nprint(f())",
            "given locals": "def f():\n    l = {}; exec('x = len(n)', None, l); return l['x']\nn = 'n'; print(f())",
        }
        found = {(use, shim): run_with_shim(code, shim).stdout for use, code in uses.items() for shim in (False, True)}
        assert found == dict.fromkeys(product(uses, (False, True)), "1\n")


def test_shell_scripts_parse_and_can_be_run() -> None:
    said = {path: subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr for path in SHELL_SCRIPTS}
    assert said == dict.fromkeys(SHELL_SCRIPTS, "")
    assert [path for path in SHELL_SCRIPTS if not os.access(path, os.X_OK)] == []


class TestSetupSh:
    def test_installs_in_order_and_prints_the_python_only(self, clone: Clone) -> None:
        result = clone.setup()
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{clone.root}/.venv/bin/python\n"
        assert clone.installed() == [
            "PYTHONPATH= setuptools>=64",
            "PYTHONPATH= torchvision",
            f"PYTHONPATH={clone.root}/scripts/build_shim basicsr==1.4.2",
            "PYTHONPATH= clone[test]",  # the path's last word
        ]

    def test_second_call_installs_nothing(self, clone: Clone) -> None:
        first, second = clone.setup(), clone.setup()
        assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
        assert clone.installed() == []

    def test_changed_files_are_installed_into_the_same_venv(self, clone: Clone) -> None:
        clone.setup()
        (clone.root / ".venv" / "kept").touch()
        assert clone.setup(FINGERPRINT="of other files").returncode == 0
        assert len(clone.installed()) == 4
        assert (clone.root / ".venv" / "kept").exists()

    def test_set_up_that_was_cut_short_starts_over(self, clone: Clone) -> None:
        broken = clone.setup(FAILING="basicsr")
        assert broken.returncode == 1
        assert broken.stdout == ""
        assert "no network\nsetup: pip: expected to install basicsr==1.4.2, got the error above" in broken.stderr
        (clone.root / ".venv" / "half-written").touch()
        healed = clone.setup(PYTHON="")  # made from what the broken one was made from
        assert healed.returncode == 0
        assert "setup: the last set-up did not finish\nsetup: making .venv" in healed.stderr
        assert len(clone.installed()) == 4
        assert not (clone.root / ".venv" / "half-written").exists()

    def test_active_environment_is_used_and_never_deleted(self, clone: Clone, tmp_path: Path) -> None:
        active = tmp_path / "active"
        (active / "bin").mkdir(parents=True)
        shutil.copy(clone.python, active / "bin" / "python")
        for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
            assert clone.setup(**{variable: active}, FAILING="torchvision").returncode == 1
            assert clone.setup(**{variable: active}).stdout == f"{active}/bin/python\n"
            assert len(clone.installed()) == 4
            (active / "reblur_plugin.stamp").unlink()
        assert not (clone.root / ".venv").exists()

    def test_condas_base_is_left_alone(self, clone: Clone, tmp_path: Path) -> None:
        result = clone.setup(CONDA_PREFIX=tmp_path, CONDA_DEFAULT_ENV="base")
        assert result.stdout == f"{clone.root}/.venv/bin/python\n"

    def test_another_python_asked_for_makes_another_venv(self, clone: Clone, tmp_path: Path) -> None:
        clone.setup()
        newer = tmp_path / "newer"
        newer.write_text(FAKE_PYTHON.replace(":-3.12.1", ":-3.13.0"))
        newer.chmod(0o755)
        assert "PYTHON is another Python than that of .venv" in clone.setup(PYTHON=newer).stderr
        assert clone.setup(PYTHON=newer).stderr == ""
        assert clone.setup(PYTHON="").stderr == ""  # none named: the one there is taken


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            lambda clone: {"VERSION": "3.9.18"},
            "Python: expected 3.10 or newer, got 3.9.18 ('{python}'); "
            "name another: PYTHON=python3.12 {root}/scripts/setup.sh",
        ),
        (
            lambda clone: {"PYTHON": "no-such-python"},
            "Python: expected 3.10 or newer, got nothing that runs as 'no-such-python'; "
            "name another: PYTHON=python3.12 {root}/scripts/setup.sh",
        ),
        (
            lambda clone: {"VIRTUAL_ENV": clone.root / "gone"},
            "Python: expected 3.10 or newer, got nothing that runs as '{root}/gone/bin/python'; "
            "leave this environment ('deactivate'), or activate one of a newer Python",
        ),
    ],
    ids=["too old", "missing", "deleted environment"],
)
def test_unfit_python_is_refused_in_one_sentence(
    clone: Clone, variables: Callable[[Clone], dict[str, object]], sentence: str
) -> None:
    result = clone.setup(**variables(clone))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"setup: {sentence.format(python=clone.python, root=clone.root)}\n"
    assert not (clone.root / ".venv").exists()


def test_python_without_venv_is_refused_with_the_way_out(clone: Clone) -> None:
    result = clone.setup(NO_VENV=1)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"setup: Python: expected the modules venv and ensurepip, got a '{clone.python}' without them; install them "
        f"(Debian, Ubuntu: apt install python3-venv), or name another Python: "
        f"PYTHON=python3.12 {clone.root}/scripts/setup.sh"
    )
    assert not (clone.root / ".venv").exists()


def test_second_set_up_at_the_same_time_is_refused(clone: Clone) -> None:
    clone.setup()
    mark = clone.root / ".venv" / "reblur_plugin.unfinished"
    mark.write_text(f"{os.getpid()}\n")
    result = clone.setup()
    assert result.returncode == 1
    assert result.stderr == (
        f"setup: {clone.root}/.venv: expected no other set-up, got process {os.getpid()} at work on it; "
        f"wait until it ends, or delete {mark} if it is something else\n"
    )
