"""The judge of the paper: a language model behind any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.image_files import read_image_file
from sage_trl.judge.arguments import JUDGEMENT_TOKENS
from sage_trl.judge.criteria import CriterionScores
from sage_trl.judge.prompts import PROMPT_VERSION, Judgement, to_scores
from sage_trl.llm_client.request import ImageFile
from sage_trl.records import Inspection, JudgeScore, Question


@dataclass(frozen=True)
class JudgementOptions:
    """How answers are put to the judge: with images, beside the best answer, how often, with how many tokens each."""

    images: bool = False
    shows_best: bool = False
    repeats: int = 1
    max_tokens: int = JUDGEMENT_TOKENS


@dataclass
class AnswerScores:
    """All repetitions of one answer's judgement; None where one is missing."""

    inspection: Inspection
    question_id: str
    answer_index: int
    answer: str
    repeats: list[CriterionScores | None] = field(default_factory=list)
    rationale: str | None = None

    def complete(self) -> list[CriterionScores] | None:
        """The scores of every repetition, or None: an incomplete set has no score."""
        known = [scores for scores in self.repeats if scores is not None]
        return known if len(known) == len(self.repeats) else None

    def mean(self) -> CriterionScores | None:
        """Mean over the repetitions, or None where one is missing."""
        repeats = self.complete()
        if repeats is None:
            return None
        return CriterionScores(*(fmean(values) for values in zip(*repeats, strict=True)))


def judge_name(model: str) -> str:
    """What `scores.jsonl` calls the judge: its model and the version of its prompt."""
    return f"{model}/prompt-{PROMPT_VERSION}"


def dataset_judgements(
    ad_pl: AdPlDirectory, inspections: Iterable[Inspection], options: JudgementOptions
) -> Iterator[tuple[AnswerScores, Judgement]]:
    """Every ranked answer in the order of the dataset, `options.repeats` times in a row.

    Raises:
        DataError: an image cannot be used.
    """
    images: dict[str, ImageFile] = {}
    for inspection in inspections:
        shown = shown_images(ad_pl, inspection, images) if options.images else ()
        for question in inspection.questions:
            for index, answer in enumerate(question.answers):
                scored = AnswerScores(inspection, question.id, index, answer)
                yield from repeated(scored, question, shown, options)


def repeated(
    scored: AnswerScores, question: Question, shown: tuple[ImageFile, ...], options: JudgementOptions
) -> Iterator[tuple[AnswerScores, Judgement]]:
    """One answer's judgement, `options.repeats` times in a row; `shown` are the images that the judge sees."""
    for repeat in range(options.repeats):
        yield scored, Judgement(scored.inspection, question, scored.answer, shown, options.shows_best, repeat)


def shown_images(
    ad_pl: AdPlDirectory, inspection: Inspection, known: MutableMapping[str, ImageFile]
) -> tuple[ImageFile, ...]:
    """Test image and, if there is one, reference image; `known` keeps what was read.

    Raises:
        DataError: an image cannot be used.
    """
    paths = [path for path in (inspection.test_image, inspection.reference_image) if path is not None]
    for path in paths:
        if path not in known:
            known[path] = read_image_file(ad_pl.image_path(path))
    return tuple(known[path] for path in paths)


def collect(asked: Sequence[tuple[AnswerScores, Judgement]], values: Sequence[Any]) -> list[AnswerScores]:
    """Put the values of a run beside the answers they judge, each answer once."""
    collected: list[AnswerScores] = []
    for (scored, judgement), value in zip(asked, values, strict=False):
        if judgement.repeat == 0:
            scored.repeats.clear()
            scored.rationale = None if value is None else value["rationale"]
            collected.append(scored)
        scored.repeats.append(None if value is None else to_scores(value))
    return collected


def score_rows(answers: Iterable[AnswerScores], judge: str) -> Iterator[JudgeScore]:
    """Rows of `scores.jsonl`, means over the repetitions; an incomplete answer has none."""
    for answer in answers:
        means = answer.mean()
        if means is None:
            continue
        yield JudgeScore(
            group_id=answer.inspection.id,
            question_id=answer.question_id,
            answer_index=answer.answer_index,
            type=means.type,
            location=means.location,
            logic=means.logic,
            mle=means.mle,
            judge=judge,
        )
