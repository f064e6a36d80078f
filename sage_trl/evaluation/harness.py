"""Puts the questions of a dataset to one model and grades the replies, in a way that a kill cannot undo."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.evaluation.answer_parsing import parse_verdict
from sage_trl.evaluation.batches import cut_batches, cut_turns
from sage_trl.evaluation.choice_parsing import parse_choice
from sage_trl.evaluation.controls import Row
from sage_trl.evaluation.conversations import Conversations, as_asked
from sage_trl.evaluation.counts import AskedGroup, unit_of
from sage_trl.evaluation.evidence import EvidenceFinder, record_evidence
from sage_trl.evaluation.judgements import Judged
from sage_trl.evaluation.metrics import Metrics, compute_metrics
from sage_trl.evaluation.mmad import mmad_answers, mmad_figures
from sage_trl.evaluation.prediction_log import PredictionLog
from sage_trl.evaluation.predictions import MMAD_PROTOCOLS, Control, MmadProtocol, Prediction, Setting, grade
from sage_trl.evaluation.processes import ALONE, Processes
from sage_trl.evaluation.progress import progress_bar
from sage_trl.evaluation.questions import EvaluationQuestion, build_questions, open_images
from sage_trl.evaluation.similarity import Encoder, similarities
from sage_trl.judge.criteria import CriterionScores, Judge
from sage_trl.models.replies import Reply
from sage_trl.records import FactSet, Question
from sage_trl.storage import content_key


class ReplyGenerator(Protocol):
    """A model under test: rows in, one reply per row out, in the same order; None where a server gave none."""

    def __call__(self, rows: list[Row], /) -> Sequence[Reply | None]: ...


@dataclass(frozen=True)
class ModelUnderTest:
    """A model with the name that results carry and what identifies its replies (weights, prompt, generation).

    A generator that is `served` gets a whole split at once, with paths for images, and shows its progress itself;
    others get batches with decoded images. `evidence`, if given, finds what the model looked at, for `evidence.jsonl`.
    """

    name: str
    generator: ReplyGenerator
    identity: Mapping[str, Any]
    served: bool = False
    evidence: EvidenceFinder | None = None


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
    controls and of the bootstrap. `encoder` measures SBERT similarity to the best answers. `mmad_protocols` are those
    by which questions of MMAD are counted.
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
    processes: Processes = ALONE
    mmad_protocols: tuple[MmadProtocol, ...] = MMAD_PROTOCOLS


@dataclass(frozen=True)
class Measured:
    """The figures of one split with what they were computed from.

    `questions` and, if a judge ran, `scores` go with the predictions, one for each.
    """

    model: str
    condition: Condition
    metrics: Metrics
    predictions: Sequence[Prediction]
    groups: Mapping[str, AskedGroup]
    questions: Sequence[EvaluationQuestion]
    scores: Sequence[CriterionScores] | None = None

    def judged_by(self, judge: str) -> Judged:
        """What names the scores of these replies."""
        return Judged(self.model, self.condition.setting, self.condition.split, self.condition.control, judge)


def evaluate(model: ModelUnderTest, setting: Setting, splits: Sequence[str], run: EvaluationRun) -> dict[str, Metrics]:
    """The metrics per split of `measure`."""
    return {split: measured.metrics for split, measured in measure(model, setting, splits, run).items()}


def measure(model: ModelUnderTest, setting: Setting, splits: Sequence[str], run: EvaluationRun) -> dict[str, Measured]:
    """Evaluate one model in one setting; returns what was measured per split, in the first of several processes.

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
    with PredictionLog(run.output, run.processes) as log:
        for split, asked in questions.items():
            _answer(model, Condition(setting, split, run.control), asked, run, log)
        log.gather()
        if not run.processes.is_first:
            return {}
        for split, built in questions.items():
            condition = Condition(setting, split, run.control)
            if model.evidence is not None:
                _record_evidence(model.name, model.evidence, condition, built, run)
            asked = as_asked(built, setting, lambda item: log.reply(item.key))
            answered = [item for item in asked if item.key in log]
            # Graded anew: an earlier run may have known another verdict, or read the reply otherwise.
            graded = [_graded_anew(model.name, condition, item, log[item.key]) for item in answered]
            log.settle(graded)
            scores = _judge(answered, graded, run)
            groups = asked_groups(built)
            metrics = _metrics(answered, graded, scores, groups, run)
            about: dict[str, Any] = {
                "unanswered": len(built) - len(answered),
                "limit": run.limit if len(groups) < len(run.directory.select(splits=[split])) else None,
                "replies_sha256": _replies_sha256(answered, graded),
            }
            metrics = metrics.model_copy(update=about)
            measured[split] = Measured(model.name, condition, metrics, graded, groups, answered, scores)
    return measured


def _answer(
    model: ModelUnderTest,
    condition: Condition,
    asked: Sequence[EvaluationQuestion],
    run: EvaluationRun,
    log: PredictionLog,
) -> None:
    """Generate this process's share of the replies that the log does not hold yet and add them to it.

    Where a kill left a turn incomplete it is generated whole, so that padding, and with it the replies' last digits,
    are those of a run that was not killed.
    """
    with progress_bar(run.quiet or model.served or not run.processes.is_first) as progress:
        batches = _batches(model, condition, asked, run)
        task = progress.add_task(_label(model.name, condition), total=sum(map(len, batches)))
        for batch in batches:
            conversations = Conversations(condition.setting)
            for turn in cut_turns(batch, condition.setting, len(asked) if model.served else run.batch_size):
                items = conversations.before(turn)
                missing = [item for item in items if item.key not in log]
                if missing:
                    # A server's replies do not depend on what else is asked, and cost money.
                    replied = _generate(model, condition, missing if model.served else items)
                    log.add([prediction for prediction in replied if prediction.key not in log])
                for item in items:
                    conversations.add(item, log.reply(item.key))
                progress.advance(task, len(turn))


def _batches(
    model: ModelUnderTest, condition: Condition, asked: Sequence[EvaluationQuestion], run: EvaluationRun
) -> list[list[EvaluationQuestion]]:
    """This process's share: of a served model everything falls to the first one, which holds its cache."""
    if model.served:
        return [list(asked)] if run.processes.is_first else []
    batches = list(cut_batches(asked, condition.setting, run.batch_size))
    return batches[run.processes.index :: run.processes.count]


def _generate(model: ModelUnderTest, condition: Condition, items: Sequence[EvaluationQuestion]) -> list[Prediction]:
    start = time.perf_counter()
    rows = [item.row for item in items]
    replies = model.generator(rows if model.served else open_images(rows))
    seconds = (time.perf_counter() - start) / len(items)
    return [
        _grade(model.name, condition, item, reply, seconds)
        for item, reply in zip(items, replies, strict=True)
        if reply is not None
    ]


def _record_evidence(
    model: str, find: EvidenceFinder, condition: Condition, asked: Sequence[EvaluationQuestion], run: EvaluationRun
) -> None:
    with progress_bar(run.quiet) as progress:
        task = progress.add_task(f"{_label(model, condition)} evidence", total=None)
        record_evidence(
            find,
            asked,
            {"model": model, **vars(condition)},
            run.output,
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _label(model: str, condition: Condition) -> str:
    return " ".join(filter(None, [model, condition.setting, condition.split, condition.control]))


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


def _judge(
    asked: Sequence[EvaluationQuestion], predictions: Sequence[Prediction], run: EvaluationRun
) -> list[CriterionScores] | None:
    if run.judge is None:
        return None
    judge = run.judge
    pairs = zip(asked, predictions, strict=True)
    return [judge.score(item.inspection, item.question, prediction.prediction) for item, prediction in pairs]


def _metrics(
    asked: Sequence[EvaluationQuestion],
    predictions: Sequence[Prediction],
    scores: Sequence[CriterionScores] | None,
    groups: Mapping[str, AskedGroup],
    run: EvaluationRun,
) -> Metrics:
    sbert = None
    if run.encoder is not None and asked:
        replies = [prediction.prediction for prediction in predictions]
        sbert = similarities(replies, [item.question.answers[0] for item in asked], run.encoder)
    answers = mmad_answers(
        (item.inspection, item.question, prediction.prediction)
        for item, prediction in zip(asked, predictions, strict=True)
    )
    mmad = {protocol: mmad_figures(answers, protocol, run.seed) for protocol in run.mmad_protocols} if answers else None
    return compute_metrics(predictions, scores, run.seed, groups=groups, sbert=sbert, mmad=mmad)


def _replies_sha256(asked: Sequence[EvaluationQuestion], predictions: Sequence[Prediction]) -> str:
    """The same for the same replies to the same questions with the same ground truth, whatever their order."""
    rows = [
        [
            prediction.key,
            prediction.prediction,
            item.question.model_dump(mode="json"),
            item.inspection.model_dump(mode="json", include={"category", "defects"}),
        ]
        for item, prediction in zip(asked, predictions, strict=True)
    ]
    return content_key(sorted(rows, key=lambda row: str(row[0])))


def asked_groups(asked: Sequence[EvaluationQuestion]) -> dict[str, AskedGroup]:
    """What was asked, by group."""
    inspections = {item.inspection.id: item.inspection for item in asked}
    return {
        name: AskedGroup(
            inspection.level, sum(question.is_graded for question in inspection.questions), unit_of(inspection)
        )
        for name, inspection in inspections.items()
    }
