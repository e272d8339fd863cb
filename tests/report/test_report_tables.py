"""A table's three forms, written out by hand."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reblur_plugin.report.tables import Cell, Table, latex_document

AWKWARD = r"a|b_c%d&e#f$g{h}i\j~k^l"


def small() -> Table:
    rows = [
        [Cell("gopro_n2|é"), Cell("0.1037", 0.1 + 0.2, best=True), Cell("30.57", 30.57)],
        [Cell("日本, 5 %"), Cell("0.2000", 1 / 3), Cell("")],
    ]
    return Table("scores", "Scores & means", ["a|b", "LPIPS ↓", "PSNR ↑"], rows, 1, ["50 % of them."])


def table_of(text: str, best: bool = False) -> Table:
    return Table("one", "One", ["method"], [[Cell(text, best=best)]])


class TestMarkdown:
    def test_it_has_title_table_and_notes(self) -> None:
        assert small().markdown() == (
            "## Scores & means\n"
            "\n"
            "| a\\|b | LPIPS ↓ | PSNR ↑ |\n"
            "| --- | ---: | ---: |\n"
            "| gopro_n2\\|é | **0.1037** | 30.57 |\n"
            "| 日本, 5 % | 0.2000 |  |\n"
            "\n"
            "- 50 % of them.\n"
        )

    def test_columns_of_words_are_flush_left(self) -> None:
        table = Table("t", "T", ["method", "against", "PSNR"], [[Cell("a"), Cell("b"), Cell("1")]], labels=2)
        assert "| --- | --- | ---: |" in table.markdown().splitlines()

    def test_only_bars_are_escaped(self) -> None:
        assert rf"| {AWKWARD.replace('|', chr(92) + '|')} |" in table_of(AWKWARD).markdown().splitlines()

    def test_a_best_cell_without_text_has_no_marks(self) -> None:
        assert "**" not in table_of("", best=True).markdown()


class TestCsv:
    def test_it_has_numbers_in_full_and_words_else(self) -> None:
        # the shortest decimals that are the same number again: 0.1 + 0.2 and 1 / 3 in float64
        assert small().csv() == (
            'a|b,LPIPS ↓,PSNR ↑\ngopro_n2|é,0.30000000000000004,30.57\n"日本, 5 %",0.3333333333333333,\n'
        )

    def test_numbers_are_read_as_they_were_bit_for_bit(self) -> None:
        numbers = [2 / 3, 1e-17, 30.570000000000004, -0.1]
        table = Table("t", "T", ["a"] * 4, [[Cell(f"{number:.2f}", number) for number in numbers]], 0)
        assert [float(cell) for cell in list(csv.reader(io.StringIO(table.csv())))[1]] == numbers

    def test_words_are_read_as_they_were(self) -> None:
        words = ['a "b", c', AWKWARD, "two\nlines", "日本"]
        table = Table("t", "T", ["a"] * 4, [[Cell(word, best=True) for word in words]], 4)
        assert list(csv.reader(io.StringIO(table.csv())))[1] == words


class TestLatex:
    def test_it_has_caption_table_and_notes(self) -> None:
        assert small().latex() == (
            "\\begin{table}\n"
            "\\centering\n"
            "\\caption{Scores \\& means}\n"
            "\\begin{tabular}{lrr}\n"
            "\\toprule\n"
            "a\\textbar{}b & LPIPS $\\downarrow$ & PSNR $\\uparrow$ \\\\\n"
            "\\midrule\n"
            "gopro\\_n2\\textbar{}é & \\textbf{0.1037} & 30.57 \\\\\n"
            "??, 5 \\% & 0.2000 &  \\\\\n"
            "\\bottomrule\n"
            "\\end{tabular}\n"
            "\\par\\footnotesize 50 \\% of them.\n"
            "\\end{table}\n"
        )

    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("|", r"\textbar{}"),
            ("_", r"\_"),
            ("%", r"\%"),
            ("&", r"\&"),
            ("#", r"\#"),
            ("$", r"\$"),
            ("{", r"\{"),
            ("}", r"\}"),
            ("\\", r"\textbackslash{}"),
            ("~", r"\textasciitilde{}"),
            ("^", r"\textasciicircum{}"),
            ("<", r"\textless{}"),
            (">", r"\textgreater{}"),
            ("†", r"$\dagger$"),
            # what an escape adds isn't escaped again
            (r"\{_}", r"\textbackslash{}\{\_\}"),
            ("Größe", "Größe"),
            ("ネット", "???"),
        ],
    )
    def test_special_letters_are_escaped_in_cells_and_everywhere_else(self, text: str, escaped: str) -> None:
        found = Table("t", text, [text], [[Cell(text)], [Cell(text, best=True)]], notes=[text]).latex().splitlines()
        assert rf"\caption{{{escaped}}}" in found
        assert found.count(rf"{escaped} \\") == 2  # header and first row
        assert rf"\textbf{{{escaped}}} \\" in found
        assert rf"\par\footnotesize {escaped}" in found

    def test_a_best_cell_without_text_has_no_command(self) -> None:
        assert "textbf" not in table_of("", best=True).latex()

    def test_a_row_that_begins_with_a_bracket_is_no_argument_of_the_line_before(self) -> None:
        # as methods are named by their references: [12]
        rows = [[Cell("[12]"), Cell("30.57", 30.57)], [Cell("[13]"), Cell("30.62", 30.62)]]
        latex = Table("t", "T", ["method", "PSNR"], rows).latex()
        assert not re.search(r"(\\\\|\\midrule)\s*\[", latex)


class TestDocument:
    def test_it_holds_all_tables_in_one_document(self) -> None:
        tables = [small(), table_of(AWKWARD)]
        text = latex_document(tables)
        head, _, rest = text.partition("\\begin{document}\n")
        body, end, tail = rest.partition("\\end{document}\n")
        assert head.splitlines()[0] == r"\documentclass{article}"
        assert r"\usepackage{booktabs,longtable}" in head.splitlines()
        assert (body.count(r"\begin{table}"), body.count(r"\end{table}")) == (2, 2)
        assert body.index("Scores") < body.index("One")
        assert (end, tail) == ("\\end{document}\n", "")

    def test_it_compiles(self, tmp_path: Path) -> None:
        if shutil.which("pdflatex") is None:
            pytest.skip("no pdflatex on this machine")
        text = latex_document([small(), table_of(AWKWARD, best=True), table_of("<†>")])
        (tmp_path / "tables.tex").write_text(text, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / "tables.pdf").stat().st_size > 0
