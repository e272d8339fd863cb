"""Tables as data, and their three forms: Markdown, CSV, LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$\dagger$",
}


@dataclass(frozen=True)
class Cell:
    """What a cell shows.

    Attributes:
        text: for people.
        number: its value, for programs and for sorting; None if it is no number.
        best: the best of its column.
    """

    text: str
    number: float | None = None
    best: bool = False


@dataclass
class Table:
    """A table.

    Attributes:
        name: of its files, without suffix.
        title: one line.
        header: names of columns; the first `labels` of them are words.
        rows: cells.
        labels: columns of words.
        notes: lines below.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[Cell]]
    labels: int = 1
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table with its title and notes."""
        marks = ["---"] * self.labels + ["---:"] * (len(self.header) - self.labels)
        lines = [self.header, marks, *([_bold(cell, "**") for cell in row] for row in self.rows)]
        table = ["| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines]
        return "\n".join([f"## {self.title}", "", *table, "", *(f"- {note}" for note in self.notes), ""])

    def csv(self) -> str:
        """Return the table with numbers in full."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        for row in self.rows:
            writer.writerow([cell.text if cell.number is None else cell.number for cell in row])
        return text.getvalue()

    def latex(self) -> str:
        """Return a table environment that needs the package booktabs; best values are bold."""
        columns = "l" * self.labels + "r" * (len(self.header) - self.labels)
        header = " & ".join(_escaped(name) for name in self.header)
        rows = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in self.rows]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(self.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            header + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {_escaped(note)}" for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join([*lines, ""])


def latex_document(tables: list[Table]) -> str:
    """Return a document of all tables, which compiles as it is."""
    head = [r"\documentclass{article}", r"\usepackage[T1]{fontenc}", r"\usepackage[utf8]{inputenc}"]
    head += [r"\usepackage{booktabs}", r"\usepackage[landscape,margin=1cm]{geometry}", r"\begin{document}", ""]
    return "\n".join([*head, *(table.latex() for table in tables), r"\end{document}", ""])


def _bold(cell: Cell, mark: str) -> str:
    return f"{mark}{cell.text}{mark}" if cell.best and cell.text else cell.text


def _latex_cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return rf"\textbf{{{text}}}" if cell.best and text else text


def _escaped(text: str) -> str:
    """Return text for LaTeX; what its 8-bit fonts lack is replaced."""
    found = "".join(_LATEX.get(letter, letter) for letter in text)
    return found.encode("latin-1", "replace").decode("latin-1")
