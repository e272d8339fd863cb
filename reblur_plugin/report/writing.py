"""A whole report: tables in three forms, figures in two, the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.commands import Asked
from reblur_plugin.files import for_people, whole_file
from reblur_plugin.report import contents, figures, published, sheets
from reblur_plugin.report.loading import load
from reblur_plugin.report.page import Pictures, few, write_page
from reblur_plugin.report.study import Study, study_of
from reblur_plugin.report.tables import Table, latex_document

_CROPS = "Crops where the methods differ most, on the images where their scores do (as Figures 5, 7-9, S4-S7)."
_KERNELS = (
    "The centre of each picture with the kernel that makes it of the sharp image (as Figure 1): the blur that is left. "
    "A single bright pixel: none."
)


def write(
    asked: Asked, out: Path, title: str, crops: int, wanted: Pictures, first: Sequence[Table] = ()
) -> tuple[Path, list[str]]:
    """Write a report to `out`; return its page and a sentence for each thing that could not be used.

    `first` are tables of the caller's, which go before the report's own.

    Raises:
        ReblurError: if nothing of what is given can be used, or the disk refuses.
    """
    if crops < 0:
        raise ReblurError(f"--crops: expected 0 or more, got {crops}")
    loaded = load(asked)
    study = study_of(loaded.runs)
    study.problems = loaded.problems + study.problems
    tables = [*first, *contents.all_tables(study)]
    found = figures.all_figures(study)
    _add_sheets(study, found, crops)
    _delete_others(out, {table.name for table in tables}, set(found))
    _write_tables(tables, out / "tables")
    for name, (_, figure) in found.items():
        figures.save(figure, out / "figures" / name)
    page = write_page(study, tables, found, out, title, wanted)
    return page, few(study.problems)


def _delete_others(out: Path, tables: set[str], found: set[str]) -> None:
    """Delete tables and figures that an earlier report has written here and this one doesn't."""
    known = {"scores", "differences", "inverse_relation", "images", *(f"table_{name}" for name in published.TABLES)}
    for folder, names, suffixes in (
        ("tables", known - tables, ("md", "csv", "tex")),
        ("figures", {"tradeoff", "inverse_relation", "gain", "crops", "kernels"} - found, ("pdf", "png")),
    ):
        for name in names:
            for suffix in suffixes:
                (out / folder / f"{name}.{suffix}").unlink(missing_ok=True)


def _write_tables(tables: list[Table], folder: Path) -> None:
    for table in tables:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            with whole_file(folder / f"{table.name}.{suffix}") as file:
                file.write(for_people(text))
    with whole_file(folder / "all.tex") as file:
        file.write(for_people(latex_document(tables)))


def _add_sheets(study: Study, found: dict[str, tuple[str, Figure]], count: int) -> None:
    makers: tuple[tuple[str, str, Callable[[Study, int], Figure | None]], ...] = (
        ("crops", _CROPS, sheets.contact_sheet),
        ("kernels", _KERNELS, sheets.kernel_sheet),
    )
    for name, caption, make in makers:
        figure = make(study, count) if count else None
        if figure is not None:
            found[name] = caption, figure
