"""Puts the questions of a dataset to one model and grades the replies, in a way that a kill cannot undo."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.evaluation.answer_parsing import parse_verdict
from sage_trl.evaluation.choice_parsing import parse_choice
from sage_trl.evaluation.controls import Row
from sage_trl.evaluation.counts import AskedGroup, unit_of
from sage_trl.evaluation.metrics import Metrics, compute_metrics
from sage_trl.evaluation.mmad import mmad_answers, mmad_figures
from sage_trl.evaluation.predictions import (
    MMAD_PROTOCOLS,
    Control,
    MmadProtocol,
    Prediction,
    PredictionLog,
    Setting,
    grade,
)
from sage_trl.evaluation.questions import EvaluationQuestion, build_questions, open_images
from sage_trl.evaluation.similarity import Encoder, mean_similarity
from sage_trl.judge.scorer import Judge
from sage_trl.models.replies import Reply
from sage_trl.records import FactSet, Question


class ReplyGenerator(Protocol):
    """A model under test: rows with decoded images in, one reply per row out, in the same order."""

    def __call__(self, rows: list[Row], /) -> list[Reply]: ...


@dataclass(frozen=True)
class ModelUnderTest:
    """A model with the name that results carry and what identifies its replies (weights, prompt, generation)."""

    name: str
    generator: ReplyGenerator
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class Condition:
    """Under what a model is measured."""

    setting: Setting
    split: str
    control: Control | None


@dataclass(frozen=True)
class EvaluationRun:
    """What is the same for all models of one evaluation.

    `facts` is None for a model that takes none. `limit` counts groups per split. `seed` is that of the shuffling
    controls and of the bootstrap. `encoder` measures SBERT similarity to the best answers. `mmad_protocols` are those by
    which questions of MMAD are counted.
    """

    directory: AdPlDirectory
    output: Path
    facts: Mapping[str, FactSet] | None = None
    judge: Judge | None = None
    encoder: Encoder | None = None
    control: Control | None = None
    limit: int | None = None
    batch_size: int = 64
    seed: int = 0
    quiet: bool = False
    mmad_protocols: tuple[MmadProtocol, ...] = MMAD_PROTOCOLS


@dataclass(frozen=True)
class Measured:
    """The figures of one split with what they were computed from."""

    metrics: Metrics
    predictions: Sequence[Prediction]
    groups: Mapping[str, AskedGroup]


def evaluate(model: ModelUnderTest, setting: Setting, splits: Sequence[str], run: EvaluationRun) -> dict[str, Metrics]:
    """The metrics per split of `measure`."""
    return {split: measured.metrics for split, measured in measure(model, setting, splits, run).items()}


def measure(model: ModelUnderTest, setting: Setting, splits: Sequence[str], run: EvaluationRun) -> dict[str, Measured]:
    """Evaluate one model in one setting; returns what was measured per split.

    Every reply reaches `predictions.jsonl` below `run.output` as soon as its batch is done. Replies that are there
    already, from an earlier or a killed run with the same content, are not generated again.

    Raises:
        DataError: the dataset lacks what the setting or the control needs, or an earlier output file is damaged.
    """
    # All splits first: a missing image or fact must show before hours of generation, not after.
    questions = {
        split: build_questions(
            run.directory,
            run.facts,
            split=split,
            setting=setting,
            control=run.control,
            limit=run.limit,
            seed=run.seed,
            identity={"model": model.name, **model.identity},
        )
        for split in splits
    }
    measured = {}
    with PredictionLog(run.output) as log:
        for split, asked in questions.items():
            condition = Condition(setting, split, run.control)
            _answer(model, condition, asked, run, log)
            # Graded anew: an earlier run may have known another verdict, or read the reply otherwise.
            graded = [_graded_anew(model.name, condition, item, log[item.key]) for item in asked]
            measured[split] = Measured(_metrics(asked, graded, run), graded, asked_groups(asked))
    return measured


def _answer(
    model: ModelUnderTest,
    condition: Condition,
    asked: Sequence[EvaluationQuestion],
    run: EvaluationRun,
    log: PredictionLog,
) -> None:
    """Generate the replies that the log does not hold yet and add them to it, batch by batch."""
    # The batches are cut before the known ones are left out, so a resumed run forms the same batches as a whole one.
    batches = [[item for item in batch if item.key not in log] for batch in _batches(asked, run.batch_size)]
    label = " ".join(filter(None, [model.name, condition.setting, condition.split, condition.control]))
    with _progress(run.quiet) as progress:
        task = progress.add_task(label, total=sum(map(len, batches)))
        for batch in filter(None, batches):
            start = time.perf_counter()
            replies = model.generator(open_images([item.row for item in batch]))
            seconds = (time.perf_counter() - start) / len(batch)
            graded = zip(batch, replies, strict=True)
            log.add([_grade(model.name, condition, item, reply, seconds) for item, reply in graded])
            progress.advance(task, len(batch))


def _graded_anew(model: str, condition: Condition, asked: EvaluationQuestion, known: Prediction) -> Prediction:
    return _grade(model, condition, asked, Reply(known.prediction, known.yes_probability), known.seconds)


def _grade(model: str, condition: Condition, asked: EvaluationQuestion, reply: Reply, seconds: float) -> Prediction:
    question = asked.question
    verdict, choice = _read(reply.text, question)
    predicted = verdict if question.choice is None else choice
    return Prediction(
        key=asked.key,
        model=model,
        setting=condition.setting,
        split=condition.split,
        control=condition.control,
        group_id=asked.inspection.id,
        question_id=question.id,
        level=asked.inspection.level,
        question=question.question,
        prediction=reply.text,
        predicted_verdict=verdict,
        verdict=question.verdict,
        correct=grade(predicted, question.verdict if question.choice is None else question.choice),
        seconds=seconds,
        yes_probability=reply.yes_probability,
        predicted_choice=choice,
        choice=question.choice,
    )


def _read(reply: str, question: Question) -> tuple[bool | None, str | None]:
    """Verdict and choice of a reply; where the options are yes and no, the verdict is that of the option chosen."""
    if question.options is None:
        return parse_verdict(reply), None
    choice = parse_choice(reply, question.options)
    if choice is None or question.verdict is None:
        return None, choice
    return parse_verdict(question.options[choice]), choice


def _metrics(asked: Sequence[EvaluationQuestion], predictions: Sequence[Prediction], run: EvaluationRun) -> Metrics:
    scores = None
    if run.judge is not None:
        judged = (
            run.judge.score(item.inspection, item.question, prediction.prediction)
            for item, prediction in zip(asked, predictions, strict=True)
        )
        scores = [(score.type, score.location, score.logic) for score in judged]
    sbert = None
    if run.encoder is not None and asked:
        replies = [prediction.prediction for prediction in predictions]
        sbert = mean_similarity(replies, [item.question.answers[0] for item in asked], run.encoder)
    answers = mmad_answers(
        (item.inspection, item.question, prediction.prediction)
        for item, prediction in zip(asked, predictions, strict=True)
    )
    mmad = {protocol: mmad_figures(answers, protocol, run.seed) for protocol in run.mmad_protocols} if answers else None
    return compute_metrics(predictions, scores, run.seed, groups=asked_groups(asked), sbert=sbert, mmad=mmad)


def asked_groups(asked: Sequence[EvaluationQuestion]) -> dict[str, AskedGroup]:
    """What was asked, by group."""
    inspections = {item.inspection.id: item.inspection for item in asked}
    return {
        name: AskedGroup(
            inspection.level, sum(question.is_graded for question in inspection.questions), unit_of(inspection)
        )
        for name, inspection in inspections.items()
    }


def _batches(asked: Sequence[EvaluationQuestion], batch_size: int) -> Iterator[list[EvaluationQuestion]]:
    """Cut into batches of whole groups of like length; the same order in every run.

    A group's questions share the pass over their images, and little is spent on padding.
    """
    groups: dict[str, list[EvaluationQuestion]] = {}
    for item in asked:
        groups.setdefault(item.inspection.id, []).append(item)
    batch: list[EvaluationQuestion] = []
    for group in sorted(groups.values(), key=lambda group: (_length(group), group[0].key)):
        if batch and len(batch) + len(group) > batch_size:
            yield batch
            batch = []
        batch += group
        while len(batch) > batch_size:
            yield batch[:batch_size]
            batch = batch[batch_size:]
    if batch:
        yield batch


def _length(group: Sequence[EvaluationQuestion]) -> tuple[bool, int, int]:
    row = group[0].row
    return row["reference_image"] is not None, len(row["facts"]), max(len(item.row["question"]) for item in group)


class _RateColumn(ProgressColumn):
    """Questions per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-" if speed is None else f"{speed:.1f}/s")


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
