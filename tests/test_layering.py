"""Imports point inward only, in no circle, and no code of this project runs what it reads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "reblur_plugin"
COMMANDS = (
    "__main__",
    "app.__main__",
    "check",
    "cli",
    "data.__main__",
    "deblur",
    "evaluate",
    "reblurability",
    "report.__main__",
)
COMMANDS += ("schema", "test", "train", "weights")
# Innermost first: a room may import those before it, and the rooms and modules of its own ring.
RINGS = (
    ("errors", "files", "names", "streams", "version"),
    ("core",),  # plain PyTorch
    # BasicSR and files
    ("archs", "checkpoints", "data", "host", "losses", "metrics", "options", "training_states", "wrappings"),
    ("pretrained",),
    ("evaluation",),
    ("models",),
    ("registration",),
    ("app", "engine", "networks", "photographs", "report"),
    COMMANDS,
)
# Modules that command lines import before they know whether there is anything to do
LIGHT = [
    "errors",
    "cli",
    "files",
    "names",
    "streams",
    "train",
    "test",
    "evaluate",
    "app.__main__",
    "app.settings",
    "deblur",
    "report.__main__",
    "reblurability",
    "registration",
    "host",
    "core.choices",
    "pretrained.catalogue",
    "pretrained.dmphn",
    "pretrained.fetching",
    "weights",
]
LIGHT += [f"options.{name}" for name in ("values", "keys", "schema", "page", "reading", "checks")]
# Calls that run what they are given, by their full name, beside those that Ruff knows
RUNNING = {"compile", "__import__"}
RUNNING |= {f"yaml.{kind}_load{all_}" for kind in ("unsafe", "full") for all_ in ("", "_all")} | {"yaml.load_all"}
HEAVY = {"torch", "torchvision", "basicsr", "numpy", "cv2", "lpips", "skimage", "scipy"}


def name_of(path: Path) -> str:
    """Return a module's name within the package; "" is the package's own face."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FACES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(top: ast.AST) -> Iterator[str]:
    """Yield the full names of what is imported, at module level, inside functions and for type checkers."""
    for node in ast.walk(top):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def neighbours(module: str) -> set[str]:
    """Return the package's modules that a module imports, without faces."""
    found = set()
    for full in imported(tree(MODULES[module])):
        package, _, name = full.partition(".")
        if package == PACKAGE.name:
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found - FACES


def ring(module: str) -> int:
    for number, rooms in enumerate(RINGS):
        if module in rooms:
            return number
    room = module.partition(".")[0]
    return next(number for number, rooms in enumerate(RINGS) if room in rooms)


def circle(edges: dict[str, set[str]]) -> set[str]:
    """Return the modules that reach themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += edges[module]
        return seen

    return {module for module in edges if module in reached(module)}


class TestRings:
    def test_imports_point_inward(self) -> None:
        outward = {
            f"{module} -> {other}"
            for module in MODULES.keys() - FACES
            for other in neighbours(module)
            if ring(other) > ring(module)
        }
        assert outward == set()

    def test_there_is_no_circle(self) -> None:
        assert circle({module: neighbours(module) for module in MODULES.keys() - FACES}) == set()

    def test_a_circle_would_be_found(self) -> None:
        assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}

    def test_faces_import_nothing_of_the_package(self) -> None:
        names = {face: list(imported(tree(MODULES[face]))) for face in FACES}
        assert {face for face, found in names.items() if any(name.startswith(PACKAGE.name) for name in found)} == set()

    def test_the_core_names_no_word_of_the_host(self) -> None:
        for module in MODULES:
            if module.startswith("core."):
                nodes = list(ast.walk(tree(MODULES[module])))
                names = {node.id for node in nodes if isinstance(node, ast.Name)}
                names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
                assert not names & {"lq", "gt", "net_g", "net_r", "net_d", "opt"}, module

    def test_basicsr_has_one_door(self) -> None:
        callers = {
            module
            for module, path in MODULES.items()
            if any(name.partition(".")[0] == "basicsr" for name in imported(tree(path)))
        }
        assert callers == set()  # host itself asks by name


def test_what_command_lines_import_first_is_light() -> None:
    for module in ("", *LIGHT):
        # imports within functions are made when they are needed
        first = [node for node in tree(MODULES[module]).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert not {name.partition(".")[0] for name in imported(ast.Module(first, []))} & HEAVY, module


def unsafe(call: ast.Call) -> bool:
    """Return whether a call that Ruff knows nothing of could run what a file holds."""
    name, options = ast.unparse(call.func), {option.arg: ast.unparse(option.value) for option in call.keywords}
    if name == "torch.load":
        return options.get("weights_only") != "True"
    return name in RUNNING or "allow_pickle" in options


class TestNothingRunsWhatItReads:
    """Ruff looks for it; what it doesn't know is looked for here."""

    def test_ruff_finds_it(self) -> None:
        code = {
            "eval(text)": "S307",
            "exec(text)": "S102",
            "pickle.load(file)": "S301",
            "pickle.Unpickler(file)": "S301",
            "shelve.open(path)": "S301",
            "marshal.loads(text)": "S302",
            "yaml.load(text)": "S506",
            "yaml.load(text, Loader=yaml.FullLoader)": "S506",
            "subprocess.run(text, shell=True)": "S602",
            "os.system(text)": "S605",
            "os.popen(text)": "S605",
            "print(text)": "T201",
            "try: pass\nexcept: pass": "E722",
        }
        source = "import marshal, os, pickle, shelve, subprocess, yaml\n" + "\n".join(code)
        ruff = Path(sys.executable).with_name("ruff")
        command = [ruff, "check", "--output-format=concise", "--stdin-filename=reblur_plugin/x.py", "-"]
        done = subprocess.run(command, input=source, cwd=ROOT, capture_output=True, text=True, check=False)
        # x.py:3:1: S102 Use of `exec` detected
        found = {(int(line.split(":")[1]), line.split()[1]) for line in done.stdout.splitlines() if line.count(":") > 2}
        lines = source.splitlines()
        assert {(lines.index(text.splitlines()[-1]) + 1, rule) for text, rule in code.items()} <= found

    def test_what_it_does_not_know_is_used_in_its_safe_form(self) -> None:
        for path in [*MODULES.values(), *(ROOT / "scripts").rglob("*.py"), ROOT / "setup.py"]:
            calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
            assert [call.lineno for call in calls if unsafe(call)] == [], path

    def test_its_other_form_would_be_found(self) -> None:
        for code, expected in {
            "torch.load(path)": True,
            "torch.load(path, weights_only=False)": True,
            "torch.load(path, weights_only=True)": False,
            "yaml.unsafe_load(text)": True,
            "yaml.full_load(text)": True,
            "numpy.load(path, allow_pickle=True)": True,
            "numpy.load(path)": False,
            "compile(text)": True,
            "re.compile(text)": False,
        }.items():
            call = ast.parse(code, mode="eval").body
            assert isinstance(call, ast.Call)
            assert unsafe(call) is expected, code
