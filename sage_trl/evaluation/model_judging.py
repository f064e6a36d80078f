"""Replies scored by a language model, once all of them are saved: a judge that stops loses nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.errors import SageError
from sage_trl.evaluation.harness import Measured
from sage_trl.evaluation.judgements import JudgedReply, judged_reply
from sage_trl.judge.model_judge import AnswerScores, JudgementOptions, collect, judge_name, repeated, shown_images
from sage_trl.judge.prompts import PARSER, Judgement, parse_judgement
from sage_trl.llm_client.asking import ask, check_service, show_unanswered
from sage_trl.llm_client.cost import dollars
from sage_trl.llm_client.plan import Estimate, estimate
from sage_trl.llm_client.request import ChatRequest, ImageFile
from sage_trl.llm_client.service import ServiceOptions
from sage_trl.records import Inspection, Question


class ReplyJudge:
    """The judge of the paper for replies of models under test, with the prompt, client and cache of score_mle.

    Args:
        directory: the dataset, with the ground truth and the images that the judge may see.
        service: server, judge's model and money.
        options: how replies are put to it.

    Raises:
        SageError: nothing can be asked there: no URL, no key, a cap without prices.
    """

    def __init__(self, directory: AdPlDirectory, service: ServiceOptions, options: JudgementOptions) -> None:
        check_service(service)
        self.name = judge_name(service.model)
        self._directory, self._service, self._options = directory, service, options
        self._images: dict[str, ImageFile] = {}
        self._console = Console(stderr=True, quiet=service.quiet)

    def estimate(self, inspections: Iterable[Inspection], times: int) -> Estimate:
        """What `times` replies to each question may cost to judge; the best answer stands in for a reply to come."""
        questions = ((inspection, question) for inspection in inspections for question in inspection.questions)
        judgements = (
            self._request(judgement)
            for inspection, question in questions
            for _, judgement in self._judgements(inspection, question, question.answers[0])
        )
        return estimate(judgements, self._service.prices(), times)

    def score(self, measured: Sequence[Measured]) -> tuple[list[list[JudgedReply]], SageError | None]:
        """Judge all replies; equal ones are paid once, and those of earlier runs not again.

        Returns:
            For each of `measured` the lines of the replies that have a score; and what ended the run early, or None.
        """
        asked = [pair for one in measured for pair in self._of_one(one)]
        requests = [self._request(judgement) for _, judgement in asked]
        result = ask(requests, parse_judgement, PARSER, self._service, "judge", self._console)
        assert result is not None, "a dry run judges nothing"
        answers = iter(collect(asked, result.values))
        rows = [list(self._rows(one, answers)) for one in measured]
        show_unanswered(result, lambda row: _place(asked[row][1]), self._console)
        self._console.print(
            f"judged: {sum(map(len, rows)):,} of {sum(len(one.predictions) for one in measured):,} replies "
            f"({len(result.quarantined)} in quarantine, {len(result.unknown)} unknown, {result.asked} requests sent, "
            f"{dollars(result.spent)} spent)",
            soft_wrap=True,
        )
        return rows, result.stopped

    def _of_one(self, measured: Measured) -> Iterator[tuple[AnswerScores, Judgement]]:
        for asked, prediction in zip(measured.questions, measured.predictions, strict=True):
            yield from self._judgements(asked.inspection, asked.question, prediction.prediction)

    def _judgements(
        self, inspection: Inspection, question: Question, reply: str
    ) -> Iterator[tuple[AnswerScores, Judgement]]:
        shown = shown_images(self._directory, inspection, self._images) if self._options.images else ()
        yield from repeated(AnswerScores(inspection, question.id, 0, reply), question, shown, self._options)

    def _request(self, judgement: Judgement) -> ChatRequest:
        return judgement.request(self._service.model, self._options.max_tokens)

    def _rows(self, measured: Measured, answers: Iterator[AnswerScores]) -> Iterator[JudgedReply]:
        """The lines of one split; takes one of `answers` for each prediction."""
        for prediction, answer in zip(measured.predictions, answers, strict=False):
            scores = answer.mean()
            if scores is not None:
                yield judged_reply(prediction, self.name, scores, answer.rationale)


def _place(judgement: Judgement) -> str:
    return f"{judgement.inspection.id}/{judgement.question.id} reply {judgement.answer[:40]!r}"
