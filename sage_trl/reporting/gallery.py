"""The gallery's data: what was asked of each image pair, what each model replied, and where it looked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.evaluation.evidence_rows import Evidence
from sage_trl.evaluation.judgements import JudgedReply
from sage_trl.evaluation.predictions import Prediction
from sage_trl.evaluation.report import LEVEL_NAMES
from sage_trl.records import FactSet, Inspection, JudgeScore, Question
from sage_trl.reporting.conditions import input_name
from sage_trl.reporting.evaluations import Evaluation, GroupPlace, Place
from sage_trl.reporting.thumbnails import Thumbnails

Track = Callable[[Sequence[Inspection]], Iterable[Inspection]]
NOT_ASKED = "-"
Answer = tuple[str, str, int]
"""Group, question and rank of a ranked answer."""


@dataclass(frozen=True)
class EvaluatedDataset:
    """A dataset with the evaluations on it, its facts by image and its scores by answer."""

    name: str
    directory: AdPlDirectory
    evaluations: Sequence[Evaluation]
    facts: Mapping[str, FactSet]
    scores: Mapping[Answer, JudgeScore]

    @cached_property
    def replies(self) -> Mapping[tuple[str, str], Sequence[tuple[Evaluation, Place]]]:
        """Where the replies to each question (group, question) are."""
        found: defaultdict[tuple[str, str], list[tuple[Evaluation, Place]]] = defaultdict(list)
        for evaluation in self.evaluations:
            for place in evaluation.replies:
                found[place.group_id, place.question_id].append((evaluation, place))
        return found

    @cached_property
    def evidence(self) -> Mapping[str, Sequence[tuple[GroupPlace, Evidence]]]:
        """Where the models looked, by group."""
        found: defaultdict[str, list[tuple[GroupPlace, Evidence]]] = defaultdict(list)
        for evaluation in self.evaluations:
            for place, evidence in evaluation.evidence.items():
                found[place.group_id].append((place, evidence))
        return found

    @cached_property
    def answered_groups(self) -> frozenset[str]:
        """The groups that some model was asked about."""
        return frozenset(group for group, _ in self.replies)


@dataclass(frozen=True)
class Gallery:
    """What the page's script shows.

    `index` is small and read at once; `groups` are read when one is shown. `questions` and `left_out` (groups) are
    counts.
    """

    index: Mapping[str, Any]
    groups: Sequence[Mapping[str, Any]]
    questions: int
    left_out: int


def build_gallery(
    datasets: Sequence[EvaluatedDataset], images: Thumbnails, limit: int, track: Track = lambda rows: rows
) -> Gallery:
    """Collect the evaluated groups of all datasets, evenly spread over them if there are more than `limit`.

    Args:
        datasets: what was evaluated.
        images: where the images are embedded.
        limit: of groups; 0 for none at all.
        track: wraps the groups of a dataset while they are collected, to show progress.

    Raises:
        DataError: an image cannot be decoded.
    """
    builder = _Builder(datasets, images)
    found = [(data, row) for data in datasets for row in _evaluated(data)]
    shown = _spread(found, limit)
    for data in datasets:
        for inspection in track([row for owner, row in shown if owner is data]):
            builder.add(data, inspection)
    return builder.finish(left_out=len(found) - len(shown))


def unknown_groups(data: EvaluatedDataset) -> int:
    """How many groups were answered that the dataset does not hold."""
    return len(data.answered_groups - {row.id for row in data.directory.inspections})


def _evaluated(data: EvaluatedDataset) -> list[Inspection]:
    return [row for row in data.directory.inspections if row.id in data.answered_groups]


def _spread(found: Sequence[Any], limit: int) -> list[Any]:
    if len(found) <= limit:
        return list(found)
    return [found[place * len(found) // limit] for place in range(limit)]


class _Builder:
    """Turns records into what the page reads.

    Outcomes are one letter for each input and, within it, each model: r right, w wrong, u unreadable, o open question,
    - not asked.
    """

    def __init__(self, datasets: Sequence[EvaluatedDataset], images: Thumbnails) -> None:
        self._images = images
        every = [evaluation for data in datasets for evaluation in data.evaluations]
        self._models = list(dict.fromkeys(model for evaluation in every for model in evaluation.models))
        places = [place.condition for evaluation in every for place in evaluation.replies]
        # The plain input first, one-shot before zero-shot.
        inputs = {input_name(place.setting, place.control): place.control is not None for place in places}
        self._inputs = sorted(inputs, key=lambda name: (inputs[name], name))
        self._categories: dict[str, int] = {}
        self._splits: dict[str, int] = {}
        self._items: list[list[Any]] = []
        self._groups: list[dict[str, Any]] = []

    def finish(self, left_out: int) -> Gallery:
        """What was added."""
        index = {
            "models": self._models,
            "inputs": self._inputs,
            "levels": list(LEVEL_NAMES.values()),
            "categories": list(self._categories),
            "splits": list(self._splits),
            "items": self._items,
        }
        return Gallery(index, self._groups, len(self._items), left_out)

    def add(self, data: EvaluatedDataset, inspection: Inspection) -> None:
        """Add a group and an item for each of its questions that was asked."""
        split, category = f"{data.name}, {inspection.split}", inspection.category
        at = [
            len(self._groups),
            list(LEVEL_NAMES).index(inspection.level),
            self._categories.setdefault(category, len(self._categories)),
            self._splits.setdefault(split, len(self._splits)),
        ]
        group = self._group(data, inspection) | {"split": split}
        self._groups.append(group)
        for number, question in enumerate(group["questions"]):
            if question["replies"]:
                self._items.append([*at, number, self._outcomes(question["replies"])])

    def _group(self, data: EvaluatedDataset, row: Inspection) -> dict[str, Any]:
        test = data.directory.image_path(row.test_image)
        reference = None if row.reference_image is None else data.directory.image_path(row.reference_image)
        facts = data.facts.get(self._images.digest(test))
        return {
            "id": row.id,
            "category": row.category,
            "level": LEVEL_NAMES[row.level],
            "test": self._images.add(test),
            "reference": None if reference is None else self._images.add(reference),
            "defects": [{"type": defect.type, "box": defect.box} for defect in row.defects],
            "facts": [] if facts is None else list(facts.facts),
            "facts_by": None if facts is None else facts.model,
            "evidence": [self._evidence(place, evidence) for place, evidence in data.evidence.get(row.id, ())],
            "questions": [self._question(data, row, question) for question in row.questions],
        }

    def _question(self, data: EvaluatedDataset, row: Inspection, question: Question) -> dict[str, Any]:
        answers = []
        for rank, text in enumerate(question.answers):
            score = data.scores.get((row.id, question.id, rank))
            answers.append({"text": text, "scores": None if score is None else _scores(score)})
        replies = [
            self._reply(place, evaluation.replies[place], evaluation.judgements.get(place, ()))
            for evaluation, place in data.replies.get((row.id, question.id), ())
        ]
        return {"question": question.question, "truth": _truth(question), "answers": answers, "replies": replies}

    def _reply(self, place: Place, reply: Prediction, judgements: Sequence[JudgedReply]) -> dict[str, Any]:
        return {
            "model": self._models.index(place.model),
            "input": self._inputs.index(input_name(place.condition.setting, place.condition.control)),
            "text": reply.prediction,
            "outcome": _outcome(reply),
            "yes": None if reply.yes_probability is None else round(reply.yes_probability, 3),
            "judged": [{"judge": one.judge, "scores": _scores(one), "rationale": one.rationale} for one in judgements],
        }

    def _evidence(self, place: GroupPlace, evidence: Evidence) -> dict[str, Any]:
        return {
            "model": self._models.index(place.model),
            "input": self._inputs.index(input_name(place.condition.setting, place.condition.control)),
            "selected": evidence.selected,
            "attended": evidence.attended,
            "patches": [{"box": patch.box, "similarity": patch.similarity} for patch in evidence.patches],
            "facts": [
                {"text": fact.text, "attention": [round(share, 4) for share in fact.attention]}
                for fact in evidence.facts
            ],
        }

    def _outcomes(self, replies: Sequence[Mapping[str, Any]]) -> str:
        letters = [NOT_ASKED] * (len(self._inputs) * len(self._models))
        for reply in replies:
            letters[reply["input"] * len(self._models) + reply["model"]] = reply["outcome"]
        return "".join(letters)


def _truth(question: Question) -> str | None:
    """The right answer in a word; None for an open question."""
    if question.choice is not None:
        return question.choice
    return None if question.verdict is None else "yes" if question.verdict else "no"


def _outcome(reply: Prediction) -> str:
    if reply.correct is None:
        return "o"
    if reply.answer is None:
        return "u"
    return "r" if reply.correct else "w"


def _scores(scored: JudgedReply | JudgeScore) -> list[float]:
    return [scored.type, scored.location, scored.logic]
