"""Which tables a report has: the scores, paired differences, the paper's tables beside ours, each image."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reblur_plugin.evaluation.scores import BLURRY, DEBLURRED, RESULT
from reblur_plugin.evaluation.variants import PAPER, Variant
from reblur_plugin.report import published
from reblur_plugin.report.statistics import Difference, Estimate, difference, estimate
from reblur_plugin.report.study import Method, Study
from reblur_plugin.report.tables import Cell, Table

_MANY = 20  # images of which a bootstrap interval holds about what it says
_DECIMALS = {"PSNR": 2, "NIQE": 3, "reblurability": 3, "sharpness": 3, "brightness": 2}


def all_tables(study: Study) -> list[Table]:
    """Return the tables that have something to show."""
    tables = [scores(study), differences(study), *(paper_table(study, number) for number in published.TABLES)]
    tables += [inverse_relation(study), images(study)]
    return [table for table in tables if table is not None and table.rows]


def decimals(variant: Variant) -> int:
    """Return how many decimals people are shown."""
    return _DECIMALS.get(variant.metric, 4)


def scores(study: Study) -> Table:
    """Return each method's means with their intervals; best ones are bold."""
    rows, columns = [], []
    for variant in study.variants:
        columns.append([estimate(list(study.values.get((one, variant), {}).values())) for one in study.results()])
    for number, method in enumerate(study.results()):
        found = [column[number] for column in columns]
        cells = [
            _mean_cell(one, column, variant)
            for one, column, variant in zip(found, columns, study.variants, strict=True)
        ]
        rows.append([Cell(study.label(method)), _count(max((one.images for one in found), default=0)), *cells])
    notes = ["Means over images with 95 % bootstrap intervals; ↑ higher is better, ↓ lower is better."]
    notes += _few(len(study.images))
    if len({frozenset(study.records.get(one, {})) for one in study.results()}) > 1:
        notes.append("Methods have different images: compare them by the paired differences.")
    notes += _infinite(study)
    return Table("scores", "Scores", ["method", "images", *_headings(study)], rows, 1, notes)


def _infinite(study: Study) -> list[str]:
    notes = []
    for method in study.results():
        for variant in study.variants:
            count = sum(map(math.isinf, study.values.get((method, variant), {}).values()))
            if count:
                which = f"{variant.metric} of {study.label(method)} is infinite for {count} image{'s' * (count > 1)}"
                notes.append(f"{which} (equal to the sharp one), left out of its mean.")
    return notes


def differences(study: Study) -> Table:
    """Return paired differences: adapted against deblurred, each run against the first one."""
    rows = []
    for before, after in _pairs(study):
        cells = []
        for variant in study.variants:
            names = study.common((before, after), variant)
            found = difference(study.on(before, variant, names), study.on(after, variant, names), variant.better)
            cells.append(_difference_cell(found, variant))
        if any(cell.number is not None for cell in cells):
            rows.append([Cell(study.label(after)), Cell(study.label(before)), *cells])
    notes = ["Mean difference over the images that both have, its 95 % interval, and on how many images it is better."]
    notes += ["Bold: the interval leaves zero out.", *_few(len(study.images))]
    return Table("differences", "Paired differences", ["method", "against", *_headings(study)], rows, 2, notes)


def _pairs(study: Study) -> list[tuple[Method, Method]]:
    """Return pairs to compare, without repetition."""
    pairs, firsts = [], []
    for run in study.run_names():
        own = study.of_run(run)
        if not own:
            continue
        base = next((one for one in own if one.stage == DEBLURRED), own[0])
        pairs += [(base, one) for one in own if one is not base]
        firsts.append(base)
    blurry = next((one for one in study.methods if one.stage == BLURRY), None)
    if blurry:
        pairs += [(blurry, one) for one in firsts]
    return pairs + [(firsts[0], one) for one in firsts[1:]]


def paper_table(study: Study, number: str) -> Table | None:
    """Return a table of the paper with these runs' values beside; None if no run belongs to it."""
    wanted = [row for row in published.rows() if row.table == number]
    ours = [_ours(study, row) for row in wanted]
    if not any(ours):
        return None
    metrics = list(wanted[0].values)
    header = ["M_D" if number not in ("1", "4", "S2") else "", "row"]
    header += [f"{metric}{part}" for metric in metrics for part in ("", " ours", " difference")]
    rows = []
    for row, found in zip(wanted, ours, strict=True):
        cells = [Cell(row.group), Cell(row.label + (" †" if row.note else ""))]
        for metric in metrics:
            cells += _beside(row.values[metric], found.get(metric), study.metric(metric))
        rows.append(cells)
    notes = [f"† {note}: {_rows_of(wanted, note)}." for note in _notes(wanted)]
    notes += _what_ours_are(study, wanted)
    return Table(f"table_{number}", f"Table {number}: {published.TABLES[number]}", header, rows, 2, notes)


def _rows_of(rows: Sequence[published.Row], note: str) -> str:
    return "; ".join(f"{row.group}: {row.label}" for row in rows if row.note == note)


def _notes(rows: Sequence[published.Row]) -> list[str]:
    return list(dict.fromkeys(row.note for row in rows if row.note))


def _ours(study: Study, row: published.Row) -> dict[str, float]:
    """Return our values of a row, by metric."""
    stages = (row.stage, RESULT) if row.stage == DEBLURRED else (row.stage,)  # a folder of pictures has a result
    method = study.find(row.run, *stages)
    found = {metric: study.mean(method, study.metric(metric)) for metric in row.values}
    return {metric: mean for metric, mean in found.items() if not math.isnan(mean)}


def _beside(printed: str | None, ours: float | None, variant: Variant | None) -> list[Cell]:
    cells = [Cell("lost") if printed is None else Cell(printed, float(printed))]
    if ours is None or variant is None:
        return [*cells, Cell(""), Cell("")]
    places = decimals(variant)
    cells.append(Cell(_number(ours, places), ours))
    if printed is None:
        return [*cells, Cell("")]
    gap = ours - float(printed)
    return [*cells, Cell(f"{gap:+.{places}f}", gap)]


def _what_ours_are(study: Study, rows: Sequence[published.Row]) -> list[str]:
    """Return what must be known before numbers are compared: images, kind of blur, other forms of metrics."""
    runs = [run for run in study.runs if run.name in {row.run for row in rows}]
    lines = []
    for run in runs:
        kinds = " and ".join(sorted({record.blur_kind for record in run.records if record.blur_kind}))
        count = len({record.image for record in run.records})
        paper = published.IMAGES["REDS" if run.name.startswith("reds") else "GOPRO"]
        lines.append(f"{run.name}: {count} images{f' of kind {kinds}' if kinds else ''}; the paper's are {paper}.")
    for metric, form in PAPER.items():
        variant = study.metric(metric)
        if variant and variant.form != form and metric in rows[0].values:
            lines.append(f"Ours is {variant.label}; the paper's is taken to be {form}.")
    return lines


def inverse_relation(study: Study) -> Table | None:
    """Return PSNR of L, of M_R(L) against B, and of L against B, for all runs that reblur (Table 1)."""
    rows = []
    for run, (deblurred, reblurred, unchanged) in study.reblurring().items():
        found = deblurred, reblurred, unchanged, reblurred - unchanged
        rows.append([Cell(run), *(Cell(_number(value, 2), value) for value in found)])
    if not rows:
        return None
    rows.sort(key=lambda row: (math.isnan(row[1].number or 0.0), row[1].number))
    header = ["run", "PSNR(L, S)", "PSNR(M_R(L), B)", "PSNR(L, B)", "gain of M_R"]
    notes = ["PSNR(L, B) is what an M_R scores that changes nothing: this part of the relation is trivial."]
    notes += ["The gain of M_R is the blur that it brings back: PSNR(M_R(L), B) - PSNR(L, B)."]
    return Table("inverse_relation", "The better deblurred, the harder to reblur: these runs", header, rows, 1, notes)


def images(study: Study) -> Table:
    """Return what adaptation does to each image: where it helps and where it doesn't."""
    rows = []
    for before, after in study.adaptations():
        for name in study.images:
            cells = []
            for variant in study.variants:
                old, new = (study.values.get((one, variant), {}).get(name, math.nan) for one in (before, after))
                places = decimals(variant)
                shown = "" if math.isnan(new - old) else f"{_number(old, places)} {new - old:+.{places}f}"
                helps = (new - old) * (1 if variant.better == "higher" else -1) > 0
                cells.append(Cell(shown, None if math.isnan(new - old) else new - old, helps))
            if any(cell.text for cell in cells):
                rows.append([Cell(before.run), Cell(name), *cells])
    notes = ["Deblurred, and what the last step of adaptation adds; bold: it helps. CSV and sorting take the change."]
    header = ["run", "image", *_headings(study)]
    return Table("images", "Adaptation of each image", header, rows, 2, notes)


def _headings(study: Study) -> list[str]:
    """Return what columns are called: the metric, with its form where there are several of it."""
    metrics = [variant.metric for variant in study.variants]
    return [
        f"{one.label if metrics.count(one.metric) > 1 else one.metric} {'↑' if one.better == 'higher' else '↓'}"
        for one in study.variants
    ]


def _few(images: int) -> list[str]:
    """Return what must be known of the intervals of few images."""
    return ["Of so few images, bootstrap intervals are too narrow."] if images < _MANY else []


def _mean_cell(one: Estimate, column: Sequence[Estimate], variant: Variant) -> Cell:
    if not one.images:
        return Cell("")
    places = decimals(variant)
    interval = "" if math.isnan(one.low) else f" [{one.low:.{places}f}, {one.high:.{places}f}]"
    means = [other.mean for other in column if other.images]
    best = one.mean == (max if variant.better == "higher" else min)(means) and len(means) > 1
    return Cell(f"{one.mean:.{places}f}{interval}", one.mean, best)


def _difference_cell(found: Difference, variant: Variant) -> Cell:
    one = found.estimate
    if not one.images:
        return Cell("")
    places = decimals(variant)
    interval = "" if math.isnan(one.low) else f" [{one.low:+.{places}f}, {one.high:+.{places}f}]"
    return Cell(f"{one.mean:+.{places}f}{interval} {found.better}/{one.images}", one.mean, found.is_clear)


def _count(images: int) -> Cell:
    return Cell(str(images), images)


def _number(value: float, places: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{places}f}"
