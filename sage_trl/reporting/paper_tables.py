"""Tables 1, 2 and 3 in the paper's form: what was measured here, and the published figures beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from sage_trl.evaluation.predictions import SETTINGS, in_turns
from sage_trl.evaluation.report import percent
from sage_trl.records import LEVELS, Turns
from sage_trl.reporting.ablations import Ablation, ArmRow
from sage_trl.reporting.published import SOURCE, TABLE_1, TABLE_2, TABLE_3, Pair
from sage_trl.reporting.tables import Figures, MeasuredDataset, Section, Table

NOTHING = "–"
_TURNS: dict[Turns, str] = {"single": "", "conversation": ", in conversation"}
_BY_RULE = " r"
Cell = Callable[[Figures], str]


def accuracy_table(measured: Sequence[MeasuredDataset]) -> Table:
    """Table 1: accuracy by level, SBERT and average accuracy, zero-shot / one-shot."""
    cells = [*(_level_cell(level) for level in LEVELS), _sbert_cell, _accuracy_cell]
    published = [
        Section(
            f"Published ({SOURCE}), {dataset}",
            [
                (row.method, [*(_pair(found, 1) for found in row[1:4]), _pair(row.sbert, 2), _pair(row.average, 1)])
                for row in rows
            ],
            published=True,
        )
        for dataset, rows in TABLE_1.items()
    ]
    return _table(
        "Table 1",
        "Accuracy by level and average, in percent, and SBERT similarity; zero-shot / one-shot",
        ("Method", "Standard", "Identification", "Reasoning", "SBERT", "Average"),
        [*_paired_sections(measured, cells), *published],
    )


def score_table(measured: Sequence[MeasuredDataset]) -> Table:
    """Table 2: mean judge scores by criterion, zero-shot / one-shot."""
    cells = [_score_cell(name) for name in ("type", "location", "logic")]
    rows = [(row.method, [_pair(figures, 2) for figures in row[1:]]) for row in TABLE_2]
    return _table(
        "Table 2",
        "MLE by criterion, 1-5; zero-shot / one-shot",
        ("Method", "Defect category", "Defect location", "Reasoning logic"),
        [*_paired_sections(measured, cells), Section(f"Published ({SOURCE}), MANTA, by GPT-4o", rows, published=True)],
    )


def ablation_table(measured: Sequence[MeasuredDataset], ablations: Sequence[Ablation]) -> Table:
    """Table 3: accuracy, SBERT, Acc-G and MLE score zero-shot, as in the paper, and one-shot beside it."""
    cells = [_accuracy_cell, _sbert_cell, _group_cell, _score_cell("mean")]
    rows = []
    for row in TABLE_3:
        shown = [f"{row.accuracy:.2f}", f"{row.sbert:.2f}", f"{row.acc_g:.2f}", f"{row.score:.2f}"]
        rows.append((row.method, [*shown, *[NOTHING] * len(cells)]))
    sections = [section for ablation in ablations for section in _ablation_sections(ablation)]
    for one in measured:
        for split in one.splits:
            ours = [
                (model, [_filled(cell, figures) for figures in by_setting for cell in cells])
                for model, by_setting in _rows(one, split)
            ]
            sections.append(Section(one.title(split), ours))
    names = ("Accuracy", "SBERT", "Acc-G", "Score")
    return _table(
        "Table 3",
        "Accuracy and Acc-G in percent, SBERT, MLE score (1-5); zero-shot as in the paper, and one-shot",
        ("Method", *(f"{name}, {shots}" for shots in ("zero-shot", "one-shot") for name in names)),
        [*sections, Section(f"Published ({SOURCE}), MANTA, zero-shot", rows, published=True)],
    )


def _table(name: str, title: str, columns: Sequence[str], sections: Sequence[Section]) -> Table:
    notes = ["Published rows are the authors' own, of their models on their data; they were not measured here."]
    cells = chain.from_iterable(row for section in sections for _, row in section.rows)
    if any(cell.endswith(_BY_RULE) for cell in cells):
        notes.append("r: by the rule judge, from ground truth (mle_rule); not comparable with scores by a model.")
    return Table(name, title, columns, sections, notes)


def _paired_sections(measured: Sequence[MeasuredDataset], cells: Sequence[Cell]) -> list[Section]:
    sections = []
    for one in measured:
        for split in one.splits:
            rows = [
                (model, [" / ".join(_filled(cell, figures) for figures in by_setting) for cell in cells])
                for model, by_setting in _rows(one, split)
            ]
            sections.append(Section(one.title(split), rows))
    return sections


def _ablation_sections(ablation: Ablation) -> list[Section]:
    seeds = f"{len(ablation.seeds)} seeds" if len(ablation.seeds) > 1 else "1 seed"
    sections = []
    for split in dict.fromkeys(row.split for row in ablation.rows):
        arms: dict[str, dict[str, ArmRow]] = {}
        for row in ablation.rows:
            if row.split == split:
                arms.setdefault(row.title, {})[row.setting] = row
        rows = [
            (title, [cell for setting in SETTINGS for cell in _arm_cells(found.get(setting))])
            for title, found in arms.items()
        ]
        sections.append(Section(f"Measured here, {ablation.title}, split {split}, mean of {seeds}", rows))
    return sections


def _arm_cells(row: ArmRow | None) -> list[str]:
    if row is None:
        return [NOTHING] * 4
    score = _score(row.mean("mle"), row.mean("mle_rule"))
    return [_percent(row.mean("accuracy")), _cosine(row.mean("sbert")), _percent(row.mean("acc_g")), score]


def _rows(one: MeasuredDataset, split: str) -> list[tuple[str, list[Figures | None]]]:
    """Name and figures, zero-shot and one-shot, of each model, and once more of what it said in conversations."""
    rows: list[tuple[str, list[Figures | None]]] = []
    for turns, addition in _TURNS.items():
        by_setting = [one.figures(in_turns(setting, turns), split) for setting in SETTINGS]
        models = dict.fromkeys(chain.from_iterable(by_setting))
        rows += [(model + addition, [found.get(model) for found in by_setting]) for model in models]
    return rows


def _filled(cell: Cell, figures: Figures | None) -> str:
    return NOTHING if figures is None else cell(figures)


def _accuracy_cell(figures: Figures) -> str:
    return _percent(figures.get("accuracy"))


def _group_cell(figures: Figures) -> str:
    return _percent(figures.get("acc_g"))


def _sbert_cell(figures: Figures) -> str:
    return _cosine(figures.get("sbert"))


def _level_cell(level: str) -> Cell:
    return lambda figures: _percent(figures.get("accuracy_by_level", {}).get(level))


def _score_cell(name: str) -> Cell:
    def cell(figures: Figures) -> str:
        by_model, by_rule = ((figures.get(judge) or {}).get(name) for judge in ("mle", "mle_rule"))
        return _score(by_model, by_rule)

    return cell


def _score(by_model: float | None, by_rule: float | None) -> str:
    if by_model is not None:
        return f"{by_model:.2f}"
    return NOTHING if by_rule is None else f"{by_rule:.2f}{_BY_RULE}"


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else percent(fraction)


def _cosine(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _pair(figures: Pair, digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in figures)
