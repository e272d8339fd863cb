"""`python -m benchmarks`: parsed before torch is imported, one report printed and written."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.report import Case, Results, Row

_REPORT = Results("tiny", {"threads": 1}, [Case("x", "plain", [Row("plain", [1.0]), Row("ours", [0.5])])])


def test_help_and_typing_errors_need_no_torch() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['bench', *sys.argv[1:]]\n"
        "try: runpy.run_module('benchmarks', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)\n"
    )
    for words, expected in ((["step", "--help"], "0 False"), (["stop"], "2 False"), (["step", "--bad"], "2 False")):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == expected


def test_a_report_is_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    seen = []
    module = types.SimpleNamespace(run=lambda arguments: seen.append(arguments) or _REPORT)
    monkeypatch.setitem(sys.modules, "benchmarks.step", module)
    monkeypatch.setattr(sys, "argv", ["bench", "step", "--json", str(tmp_path / "o.json"), "--repeats", "3", "--quick"])
    assert command.main() == 0
    assert seen[0].repeats == 3
    assert seen[0].quick is True
    assert capsys.readouterr().out == _REPORT.table() + "\n"
    assert Results.from_json((tmp_path / "o.json").read_text()) == _REPORT


@pytest.mark.parametrize("words", [["step", "--repeats", "0"], ["step", "--threads", "-1"], ["step", "--repeats", "x"]])
def test_counts_must_be_whole_and_positive(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(words)
    assert words[1] in capsys.readouterr().err
