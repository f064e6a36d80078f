"""The whole of one report: find the runs, read them, and write the page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from sage_trl.data.dataset import SCORES_FILE, AdPlDirectory, read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE, read_facts
from sage_trl.evaluation.evidence_rows import EVIDENCE_FILE
from sage_trl.evaluation.judgements import JUDGEMENTS_FILE
from sage_trl.evaluation.report import count_notes
from sage_trl.evaluation.results_files import METRICS_FILE, Results
from sage_trl.records import Inspection, JudgeScore, iterate_records
from sage_trl.reporting.ablations import Ablation, read_ablation
from sage_trl.reporting.charts import looks
from sage_trl.reporting.conditions import Condition
from sage_trl.reporting.evaluations import Evaluation, read_evaluations
from sage_trl.reporting.folders import find_runs, shortest_names
from sage_trl.reporting.gallery import EvaluatedDataset, Gallery, build_gallery, unknown_groups
from sage_trl.reporting.page import ChartSection, Page, write_page
from sage_trl.reporting.paper_tables import ablation_table, accuracy_table, score_table
from sage_trl.reporting.result_charts import accuracy_charts, group_charts
from sage_trl.reporting.score_charts import score_charts
from sage_trl.reporting.sweep_charts import sweep_charts
from sage_trl.reporting.tables import MeasuredDataset, Table, all_figures_table, comparison_table
from sage_trl.reporting.thumbnails import Thumbnails
from sage_trl.reporting.training_charts import training_charts
from sage_trl.reporting.trainings import Training, read_trainings
from sage_trl.run_record import without_local_paths


@dataclass(frozen=True)
class ReportOptions:
    """What `tools/report.py` takes.

    `dataset` stands for every evaluation's own. `gallery` is the most groups that the gallery shows, `image_size` the
    longest side of an embedded image in pixels.
    """

    runs: Sequence[Path]
    output: Path
    dataset: Path | None = None
    gallery: int = 1000
    image_size: int = 320
    quiet: bool = False


def write_report(options: ReportOptions) -> list[tuple[str, str]]:
    """Write the report.

    Returns:
        What was recognised: the kind of each thing and what it is.

    Raises:
        DataError: nothing was recognised, or a file of a run is damaged; the output is left as it was.
    """
    folders = find_runs(options.runs)
    evaluations, trainings = read_evaluations(folders.evaluations), read_trainings(folders.trainings)
    ablations = [read_ablation(path) for path in folders.ablations]
    notes: list[str] = []
    datasets = _datasets(evaluations, options.dataset, notes)
    images = Thumbnails(options.image_size)
    gallery = _gallery(datasets, images, options, notes)
    measured = _measured(evaluations, datasets)
    recognised = [
        *_evaluation_lines(evaluations),
        *_training_lines(trainings),
        *_ablation_lines(ablations),
        *_dataset_lines(datasets),
    ]
    write_page(
        options.output,
        Page(
            title=" · ".join(["SAGE report", *(data.name for data in datasets)]),
            recognised=recognised,
            notes=[*notes, *_missing(evaluations, trainings, datasets), *count_notes(_all_results(evaluations))],
            tables=_tables(measured, evaluations, ablations),
            sections=_sections(measured, trainings, ablations, datasets),
            gallery=gallery,
            images=images.urls,
        ),
    )
    return recognised


def _datasets(evaluations: Sequence[Evaluation], given: Path | None, notes: list[str]) -> list[EvaluatedDataset]:
    """The evaluations by dataset, of those whose dataset is known and there."""
    by_dataset: defaultdict[Path, list[Evaluation]] = defaultdict(list)
    if given is not None and not evaluations:
        by_dataset[given.resolve()] = []
    for evaluation in evaluations:
        path = given or evaluation.dataset
        if path is None:
            notes.append(f"{evaluation.label} does not say on which dataset it was run: give --dataset DIR.")
        elif given is None and not path.is_dir():
            notes.append(f"The dataset of {evaluation.label} is no longer at {_shown(path)}: give --dataset DIR.")
        else:
            by_dataset[path.resolve()].append(evaluation)
    read = [_read_dataset(path, found) for path, found in by_dataset.items()]
    names = Counter(data.name for data in read)
    labels = shortest_names(list(by_dataset))
    return [
        replace(data, name=f"{data.name} ({label})") if names[data.name] > 1 else data
        for data, label in zip(read, labels, strict=True)
    ]


def _read_dataset(path: Path, evaluations: Sequence[Evaluation]) -> EvaluatedDataset:
    directory = read_ad_pl(path)
    files = [evaluation.facts for evaluation in evaluations if evaluation.facts is not None] or [path / FACTS_FILE]
    facts = {digest: found for file in files if file.is_file() for digest, found in read_facts(file).items()}
    scores = path / SCORES_FILE
    records = [score for _, score in iterate_records(JudgeScore, scores)] if scores.is_file() else []
    by_answer = {(score.group_id, score.question_id, score.answer_index): score for score in records}
    return EvaluatedDataset(directory.info.name, directory, evaluations, facts, by_answer)


def _measured(evaluations: Sequence[Evaluation], datasets: Sequence[EvaluatedDataset]) -> list[MeasuredDataset]:
    """The results by dataset; those of an unknown one under the label of the evaluation."""
    found = [(data.name, _all_results(data.evaluations)) for data in datasets]
    placed = {id(one) for data in datasets for one in data.evaluations}
    found += [(one.label, one.results) for one in evaluations if id(one) not in placed]
    return [MeasuredDataset(name, results) for name, results in found if results]


def _gallery(
    datasets: Sequence[EvaluatedDataset], images: Thumbnails, options: ReportOptions, notes: list[str]
) -> Gallery | None:
    console = Console(stderr=True)

    def shown(rows: Sequence[Inspection]) -> Iterable[Inspection]:
        return track(rows, "collecting the gallery", console=console, disable=options.quiet)

    for data in datasets:
        unknown = unknown_groups(data)
        if unknown:
            notes.append(
                f"{unknown:,} groups that were answered are not in the dataset {data.name}; the gallery lacks them."
            )
    if not any(data.answered_groups for data in datasets):
        return None
    return build_gallery(datasets, images, options.gallery, shown)


def _tables(
    measured: Sequence[MeasuredDataset], evaluations: Sequence[Evaluation], ablations: Sequence[Ablation]
) -> list[Table]:
    comparisons = comparison_table(entry for evaluation in evaluations for entry in evaluation.comparisons)
    tables = [accuracy_table(measured), score_table(measured)] if measured else []
    tables += [ablation_table(measured, ablations)] if measured or ablations else []
    tables += [all_figures_table(measured)] if measured else []
    return [*tables, *([comparisons] if comparisons else [])]


def _sections(
    measured: Sequence[MeasuredDataset],
    trainings: Sequence[Training],
    ablations: Sequence[Ablation],
    datasets: Sequence[EvaluatedDataset],
) -> list[ChartSection]:
    models = [model for one in measured for model in one.results]
    by_name = looks([*models, *(run.name for run in trainings)])
    scored = [data for data in datasets if data.scores]
    sections = [
        ChartSection("charts", "Results as charts", [*accuracy_charts(measured, by_name), *group_charts(measured)]),
        ChartSection("sweeps", "Sweeps", sweep_charts(ablations)),
        ChartSection("training", "Training", training_charts(trainings, by_name)),
        ChartSection(
            *("scores", "Judge scores of the dataset"),
            [chart for data in scored for chart in score_charts(list(data.scores.values()), data.name)],
        ),
    ]
    return [section for section in sections if section.charts]


def _missing(
    evaluations: Sequence[Evaluation], trainings: Sequence[Training], datasets: Sequence[EvaluatedDataset]
) -> list[str]:
    """What the report could show, and how to get it."""
    notes = []
    if not evaluations:
        notes.append("No evaluation was given: name an output directory of tools/evaluate.py as well.")
    for one in evaluations:
        if not one.results:
            notes.append(f"{one.label} has replies and no {METRICS_FILE}: its evaluation was stopped; run it again.")
        notes += _uncounted(one)
        if not one.judgements:
            notes.append(f"{one.label} has no {JUDGEMENTS_FILE} of its replies: tools/evaluate.py --judge writes it.")
        if not one.evidence:
            notes.append(f"{one.label} has no {EVIDENCE_FILE}: tools/evaluate.py --evidence writes it.")
    if not trainings:
        notes.append("No training run was given: name an output directory of tools/train.py as well.")
    for data in datasets:
        if not data.scores:
            notes.append(f"The dataset {data.name} has no {SCORES_FILE}: tools/score_mle.py writes it.")
        if not data.facts:
            notes.append(f"The dataset {data.name} has no {FACTS_FILE}: tools/generate_facts.py writes it.")
    return notes


def _uncounted(evaluation: Evaluation) -> list[str]:
    """Where the replies that the gallery shows are not those that the figures count."""
    shown = Counter((place.model, place.condition) for place in evaluation.replies)
    notes = []
    for model, by_key in evaluation.results.items():
        for key, figures in by_key.items():
            replies = shown[model, Condition.of_key(key)]
            # Files written before open questions were counted lack their number.
            if "open" in figures and replies != figures["questions"] + figures["open"]:
                notes.append(
                    f"{model}, {key}: {replies:,} replies are shown, the figures count "
                    f"{figures['questions'] + figures['open']:,}: others are of an earlier run, or were removed."
                )
    return notes


def _all_results(evaluations: Sequence[Evaluation]) -> Results:
    """The figures of all evaluations, whose models have names of their own."""
    return {model: dict(by_key) for one in evaluations for model, by_key in one.results.items()}


def _evaluation_lines(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    return [
        ("evaluation", f"{one.label}: {', '.join(one.models)}; {len(one.replies):,} replies") for one in evaluations
    ]


def _training_lines(trainings: Sequence[Training]) -> list[tuple[str, str]]:
    lines = []
    for one in trainings:
        steps = max((entry["step"] for entry in one.log), default=0)
        lines.append(("training", f"{_shown(one.path)}: {one.stage or 'stage unknown'}, {steps:,} steps"))
    return lines


def _ablation_lines(ablations: Sequence[Ablation]) -> list[tuple[str, str]]:
    return [
        ("ablation", f"{_shown(one.path)}: {one.title}; seeds {', '.join(map(str, one.seeds))}") for one in ablations
    ]


def _dataset_lines(datasets: Sequence[EvaluatedDataset]) -> list[tuple[str, str]]:
    return [("dataset", f"{_shown(data.directory.root)}: {_size(data.directory)}") for data in datasets]


def _size(directory: AdPlDirectory) -> str:
    groups = ", ".join(f"{split} {count:,}" for split, count in directory.info.splits.items())
    return f"{directory.info.name}; groups: {groups}"


def _shown(path: Path) -> str:
    """A path as it may be shown to others."""
    return str(without_local_paths(str(path)))
