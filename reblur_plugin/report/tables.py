"""Tables as data, and their three forms: Markdown, CSV, LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

_PAGE = 40  # rows, beyond which a table goes over pages
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
        """Return a table that needs the packages booktabs and longtable; best values are bold."""
        columns = "l" * self.labels + "r" * (len(self.header) - self.labels)
        header = _latex_line([_escaped(name) for name in self.header])
        rows = [_latex_line([_latex_cell(cell) for cell in row]) for row in self.rows]
        caption = rf"\caption{{{_escaped(self.title)}}}"
        body = [r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
        notes = [rf"\par\footnotesize {_escaped(note)}" for note in self.notes]
        if len(self.rows) > _PAGE:
            lines = [rf"\begin{{longtable}}{{{columns}}}", caption + r"\\", *body, r"\end{longtable}"]
            return "\n".join([*lines, *(f"{{{note}}}" for note in notes), ""])
        lines = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{columns}}}", *body]
        return "\n".join([*lines, r"\end{tabular}", *notes, r"\end{table}", ""])


def latex_document(tables: list[Table]) -> str:
    """Return a document of all tables, which compiles as it is."""
    head = [r"\documentclass{article}", r"\usepackage[T1]{fontenc}", r"\usepackage[utf8]{inputenc}"]
    head += [
        r"\usepackage{booktabs,longtable}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
        r"\begin{document}",
        "",
    ]
    return "\n".join([*head, *(table.latex() for table in tables), r"\end{document}", ""])


def _bold(cell: Cell, mark: str) -> str:
    text = _in_line(cell.text)
    return f"{mark}{text}{mark}" if cell.best and text else text


def _in_line(text: str) -> str:
    """Return text without line ends and other letters that control something."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _latex_line(cells: list[str]) -> str:
    """Return a row; one that begins as an option of the row before it would gets an empty group first."""
    line = " & ".join(cells)
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return rf"\textbf{{{text}}}" if cell.best and text else text


def _escaped(text: str) -> str:
    """Return text for LaTeX; what its 8-bit fonts lack is replaced."""
    found = "".join(_LATEX.get(letter, letter) for letter in _in_line(text))
    return found.encode("latin-1", "replace").decode("latin-1")
