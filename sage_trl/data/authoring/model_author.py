"""Questions and answers by a language model, in the paper's three stages: captions, templates, ranked answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path

from rich.console import Console

from sage_trl.data.authoring import model_prompts as prompts
from sage_trl.data.authoring import model_replies as replies
from sage_trl.data.authoring.author import choose_questions, make_inspection
from sage_trl.data.authoring.questions import TEMPLATES, Asked, Template
from sage_trl.data.authoring.scenes import Scene
from sage_trl.data.image_files import read_image_file
from sage_trl.errors import SageError
from sage_trl.llm_client.client import read_api_key
from sage_trl.llm_client.cost import dollars
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import Parse, make_plan
from sage_trl.llm_client.request import ChatRequest, ImageFile
from sage_trl.llm_client.runner import RunResult, run_plan
from sage_trl.llm_client.service import ServiceOptions, ask_to_send, open_ledger, show_cost
from sage_trl.records import LEVELS, Inspection, Level

SHOWN = 10  # reasons of one stage that are printed
Chosen = tuple[int, Level, list[Asked]]
# Stands in for a caption that is still to be written where only the cost is asked for.
_CAPTION_TO_COME = dict.fromkeys(prompts.CAPTION_FIELDS, "x" * (4 * prompts.CAPTION_TOKENS // 3))


class IncompleteError(SageError):
    """The model wrote too little to make a dataset of."""

    exit_code = 3


class DryRunError(SageError):
    """The cost was shown, and nothing was sent."""

    exit_code = 0


@dataclass
class ModelAuthor:
    """An `Author` that asks a model; everything it got is in its cache file, so it goes on where it stopped.

    The questions follow from the model's templates and the ground truth, as the rule author's do: balanced, and with
    verdicts that no model decides. A group that it has no valid captions or answers for is left out, never filled in.

    Attributes:
        options: server, model, money.
        left_out: id of a scene that is left out -> why.
    """

    options: ServiceOptions
    left_out: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, scenes: Sequence[Scene], seed: int, image_path: Callable[[str], Path]
    ) -> list[Inspection | None]:
        """See `Author`.

        Raises:
            IncompleteError: no templates of some level, or not a single group.
            SageError: what ended the run early: cap, signal, credentials, server.
        """
        read_api_key(self.options.base_url)
        images = _read_images(scenes, image_path)
        with open_ledger(self.options) as ledger:
            stages = _Stages(self.options, scenes, images, seed, ledger)
            stages.consent()
            templates = stages.templates()
            captions = stages.captions()
            return self._inspections(scenes, stages, captions, templates)

    def _inspections(
        self,
        scenes: Sequence[Scene],
        stages: _Stages,
        captions: RunResult,
        templates: Mapping[Level, Sequence[Template]],
    ) -> list[Inspection | None]:
        self.left_out |= {scenes[row].id: f"captions: {why}" for row, why in stages.lacking(captions).items()}
        known = [one for one in stages.choose(templates) if captions.values[one[0]] is not None]
        answered = stages.answers(known, captions.values)
        self.left_out |= {scenes[known[row][0]].id: f"answers: {why}" for row, why in stages.lacking(answered).items()}
        written: list[Inspection | None] = [None] * len(scenes)
        for (index, level, asked), value in zip(known, answered.values, strict=True):
            if value is not None:
                ranked = [tuple(one["answers"]) for one in value]
                written[index] = make_inspection(scenes[index], level, asked, ranked)
        if not any(written):
            raise IncompleteError(
                f"{self.options.model} wrote no usable group\n"
                f"  remedy: look at the quarantine of {self.options.cache}, or try another model"
            )
        return written

    def report(self, console: Console) -> None:
        """Print what was left out, and why."""
        for name, reason in list(self.left_out.items())[:SHOWN]:
            console.print(f"left out: {name}: {reason[:200]}", soft_wrap=True, markup=False)
        if self.left_out:
            console.print(
                f"{len(self.left_out)} groups were left out; the same command with --force asks for unknown ones "
                "again, with --retry-quarantined for all",
                soft_wrap=True,
                markup=False,
            )


class _Stages:
    """The three stages of one run; each asks only what the ledger does not know."""

    def __init__(
        self,
        options: ServiceOptions,
        scenes: Sequence[Scene],
        images: Sequence[tuple[ImageFile, ...]],
        seed: int,
        ledger: Ledger,
    ) -> None:
        self._options, self._scenes, self._images = options, scenes, images
        self._seed, self._ledger = seed, ledger
        self._console = Console(quiet=options.quiet, stderr=True)
        model = options.model
        self._caption_requests = [prompts.caption_request(model, *pair) for pair in zip(scenes, images, strict=True)]
        self._template_requests = [
            replace(
                prompts.template_request(model, level),
                check=partial(replies.check_kinds, kinds=prompts.KINDS_OF_LEVEL[level]),
            )
            for level in LEVELS
        ]

    def consent(self) -> None:
        """Show what all stages may cost, and let the user decide.

        Raises:
            DryRunError: only the cost was asked for.
            SageError: the user does not want it.
        """
        prices = self._options.prices()
        drafts = self._answer_requests(self.choose(TEMPLATES), [_CAPTION_TO_COME] * len(self._scenes))
        stages = (
            ("captions", self._caption_requests, replies.parse_captions, replies.CAPTION_PARSER),
            ("templates", self._template_requests, replies.parse_templates, replies.TEMPLATE_PARSER),
            ("answers (if none is cached)", drafts, replies.parse_answers, replies.ANSWER_PARSER),
        )
        expected = worst = pending = 0
        for name, requests, parse, parser in stages:
            plan = make_plan(requests, parse, self._options.settings(parser), self._ledger)
            self._console.print(f"to ask for {name}: {len(plan.pending):,}", soft_wrap=True)
            expected, worst = expected + plan.estimate.expected, worst + plan.estimate.worst
            pending += len(plan.pending)
        show_cost(expected, worst, self._ledger.spent(), prices, self._console)
        if self._options.dry_run:
            raise DryRunError("dry run: nothing was sent, nothing was written")
        if pending and not self._options.yes:
            ask_to_send()

    def templates(self) -> dict[Level, tuple[Template, ...]]:
        """Stage 2, which depends on no scene.

        Raises:
            IncompleteError: a level has none; with other templates every question would be another.
        """
        result = self._run("templates", self._template_requests, replies.parse_templates, replies.TEMPLATE_PARSER)
        for row, reason in self.lacking(result).items():
            raise IncompleteError(
                f"no question templates of {LEVELS[row]}: {reason}\n"
                "  remedy: give --retry-quarantined to ask again, or try another model"
            )
        return {level: replies.to_templates(value) for level, value in zip(LEVELS, result.values, strict=True)}

    def captions(self) -> RunResult:
        """Stage 1: a value for each scene."""
        return self._run("captions", self._caption_requests, replies.parse_captions, replies.CAPTION_PARSER)

    def choose(self, templates: Mapping[Level, Sequence[Template]]) -> list[Chosen]:
        """Level and questions of every scene, also of those without captions: so the others' stay the same."""
        chosen = choose_questions(self._scenes, self._seed, templates)
        return sorted(((index, level, asked) for index, level, asked, _ in chosen), key=itemgetter(0))

    def answers(self, chosen: Sequence[Chosen], captions: Sequence[dict[str, str]]) -> RunResult:
        """Stage 3: a value for each of `chosen`."""
        requests = self._answer_requests(chosen, captions)
        return self._run("answers", requests, replies.parse_answers, replies.ANSWER_PARSER)

    def lacking(self, result: RunResult) -> dict[int, str]:
        """Row -> why it has no value."""
        unknown = {row: f"unknown: {reason}" for row, reason in result.unknown.items()}
        return {**{row: f"in quarantine: {reason}" for row, reason in result.quarantined.items()}, **unknown}

    def _answer_requests(self, chosen: Sequence[Chosen], captions: Sequence[dict[str, str]]) -> list[ChatRequest]:
        requests = []
        for index, _, asked in chosen:
            scene = self._scenes[index]
            check = partial(replies.check_answers, scene=scene, asked=asked)
            request = prompts.answer_request(self._options.model, scene, self._images[index], captions[index], asked)
            requests.append(replace(request, check=check))
        return requests

    def _run(self, stage: str, requests: Sequence[ChatRequest], parse: Parse, parser: str) -> RunResult:
        settings = self._options.settings(parser)
        result = run_plan(make_plan(requests, parse, settings, self._ledger), parse, settings, self._ledger)
        self._console.print(
            f"{stage}: {sum(value is not None for value in result.values)} of {len(requests)}, "
            f"{len(result.quarantined)} in quarantine, {len(result.unknown)} unknown, {result.asked} requests sent, "
            f"{dollars(result.spent)} spent",
            soft_wrap=True,
        )
        if result.stopped is not None:
            raise result.stopped
        return result


def _read_images(scenes: Sequence[Scene], image_path: Callable[[str], Path]) -> list[tuple[ImageFile, ...]]:
    known: dict[str, ImageFile] = {}
    for scene in scenes:
        for name in filter(None, (scene.test_image, scene.reference_image)):
            if name not in known:
                known[name] = read_image_file(image_path(name))
    return [
        tuple(known[name] for name in (scene.test_image, scene.reference_image) if name is not None) for scene in scenes
    ]
