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
from sage_trl.evaluation.controls import Row
from sage_trl.evaluation.conversations import Conversations, as_asked
from sage_trl.evaluation.counts import AskedGroup
from sage_trl.evaluation.judgements import Judged
from sage_trl.evaluation.metrics import Metrics, compute_metrics
from sage_trl.evaluation.prediction_log import PredictionLog
from sage_trl.evaluation.predictions import Control, Prediction, Setting, grade
from sage_trl.evaluation.processes import ALONE, Processes
from sage_trl.evaluation.progress import progress_bar
from sage_trl.evaluation.questions import EvaluationQuestion, build_questions, open_images
from sage_trl.evaluation.similarity import Encoder, mean_similarity
from sage_trl.judge.criteria import CriterionScores, Judge
from sage_trl.models.replies import Reply
from sage_trl.records import FactSet, Inspection


class ReplyGenerator(Protocol):
    """A model under test: rows in, one reply per row out, in the same order; None where a server gave none."""

    def __call__(self, rows: list[Row], /) -> Sequence[Reply | None]: ...


@dataclass(frozen=True)
class ModelUnderTest:
    """A model with the name that results carry and what identifies its replies (weights, prompt, generation).

    A generator that is `served` gets a whole split at once, with paths for images, and shows its progress itself;
    others get batches with decoded images.
    """

    name: str
    generator: ReplyGenerator
    identity: Mapping[str, Any]
    served: bool = False


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
    controls and of the bootstrap. `encoder` measures SBERT similarity to the best answers.
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
        for split, asked in questions.items():
            condition = Condition(setting, split, run.control)
            answered = [item for item in as_asked(asked, setting, log) if item.key in log]
            # Graded anew: an earlier run may have known another verdict, or read the reply otherwise.
            graded = [_graded_anew(model.name, condition, item, log[item.key]) for item in answered]
            scores = _judge(answered, graded, run)
            groups = asked_groups(asked)
            metrics = _metrics(answered, graded, scores, groups, run)
            metrics = metrics.model_copy(update={"unanswered": len(asked) - len(answered)})
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
    batch_size = len(asked) if model.served else run.batch_size
    batches = list(cut_batches(asked, condition.setting, batch_size))[run.processes.index :: run.processes.count]
    label = " ".join(filter(None, [model.name, condition.setting, condition.split, condition.control]))
    with progress_bar(run.quiet or model.served or not run.processes.is_first) as progress:
        task = progress.add_task(label, total=sum(map(len, batches)))
        for batch in batches:
            conversations = Conversations(condition.setting)
            for turn in cut_turns(batch, condition.setting, batch_size):
                items = [conversations.before(item) for item in turn if not conversations.is_broken(item)]
                if any(item.key not in log for item in items):
                    replied = _generate(model, condition, items)
                    log.add([prediction for prediction in replied if prediction.key not in log])
                conversations.add(items, log)
                progress.advance(task, len(turn))


def _generate(model: ModelUnderTest, condition: Condition, items: Sequence[EvaluationQuestion]) -> list[Prediction]:
    start = time.perf_counter()
    rows = [item.row for item in items]
    replies = model.generator(rows if model.served else open_images(rows))
    seconds = (time.perf_counter() - start) / len(items)
    pairs = zip(items, replies, strict=True)
    return [_grade(model.name, condition, item, reply, seconds) for item, reply in pairs if reply is not None]


def _graded_anew(model: str, condition: Condition, asked: EvaluationQuestion, known: Prediction) -> Prediction:
    return _grade(model, condition, asked, Reply(known.prediction, known.yes_probability), known.seconds)


def _grade(model: str, condition: Condition, asked: EvaluationQuestion, reply: Reply, seconds: float) -> Prediction:
    predicted = parse_verdict(reply.text)
    return Prediction(
        key=asked.key,
        model=model,
        setting=condition.setting,
        split=condition.split,
        control=condition.control,
        group_id=asked.inspection.id,
        question_id=asked.question.id,
        level=asked.inspection.level,
        question=asked.question.question,
        prediction=reply.text,
        predicted_verdict=predicted,
        verdict=asked.question.verdict,
        correct=grade(predicted, asked.question.verdict),
        seconds=seconds,
        yes_probability=reply.yes_probability,
    )


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
        sbert = mean_similarity(replies, [item.question.answers[0] for item in asked], run.encoder)
    return compute_metrics(predictions, scores, run.seed, groups=groups, sbert=sbert)


def asked_groups(asked: Sequence[EvaluationQuestion]) -> dict[str, AskedGroup]:
    """What was asked, by group.

    Groups are of one physical unit if their source says so; where it says nothing, if their test image is the same file.
    """
    inspections = {item.inspection.id: item.inspection for item in asked}
    return {
        name: AskedGroup(
            inspection.level, sum(q.verdict is not None for q in inspection.questions), _unit_of(inspection)
        )
        for name, inspection in inspections.items()
    }


def _unit_of(inspection: Inspection) -> str:
    return inspection.test_image if inspection.unit is None else f"{inspection.dataset}/{inspection.unit}"
