"""Imports point inward only, and no code of this project runs what it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "reblur_plugin"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py"), ROOT / "setup.py"])
CORE = sorted((PACKAGE / "core").glob("*.py"))
INNER = ("reblur_plugin.core", "reblur_plugin.errors")
# Modules that command lines import before they know whether there is anything to do
LIGHT = ["__init__", "errors", "cli", "train", "test", "reblurability", "registration", "host", "core/choices"]
LIGHT += [f"options/{name}" for name in ("values", "keys", "schema", "page", "reading", "checks")]
HEAVY = {"torch", "torchvision", "basicsr", "numpy", "cv2", "lpips", "skimage", "scipy"}
# Calls that run what they are given, by the last parts of their name
RUNNING = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "yaml.unsafe_load_all",
    "marshal.loads",
    "shelve.open",
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of the imported modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yield the calls in a module that could run what a file or a user gives."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = dotted(call.func)
        options = {option.arg: option.value for option in call.keywords}
        if name in RUNNING:
            yield f"line {call.lineno}: {name}"
        if name == "torch.load" and getattr(options.get("weights_only"), "value", None) is not True:
            yield f"line {call.lineno}: torch.load without weights_only=True"
        if name == "yaml.load" and dotted(options.get("Loader", call)) not in ("_Loader", "yaml.SafeLoader"):
            yield f"line {call.lineno}: yaml.load without a safe loader"
        if "shell" in options or "allow_pickle" in options:
            yield f"line {call.lineno}: {name} with shell or allow_pickle"


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_neither_basicsr_nor_an_outer_ring(path: Path) -> None:
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        assert name.split(".")[0] != "basicsr"
        assert not name.startswith("reblur_plugin") or name.startswith(INNER), name


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_names_no_word_of_the_host(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert not names & {"lq", "gt", "net_g", "net_r", "net_d", "opt"}


@pytest.mark.parametrize("name", LIGHT)
def test_what_command_lines_import_first_is_light(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    # imports within functions are made when they are needed
    first = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
    assert not {module.split(".")[0] for module in imports(first)} & HEAVY


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(path: Path) -> None:
    assert list(forbidden(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_prints_nothing_and_hides_no_error(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Call) and dotted(node.func) == "print"), node.lineno
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.CLoader)",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "pickle.load(file)",
        "subprocess.run(text, shell=True)",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_such_calls_are_found(code: str) -> None:
    assert len(list(forbidden(ast.parse(code)))) == 1
