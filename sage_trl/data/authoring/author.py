"""The rule author: five related questions on each image pair, each with its verdict and four ranked answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sage_trl.data.authoring.balance import Balance
from sage_trl.data.authoring.claims import ranked_claims
from sage_trl.data.authoring.questions import Asked, possible_questions
from sage_trl.data.authoring.scenes import Scene
from sage_trl.data.authoring.wording import write_answers
from sage_trl.records import LEVELS, Inspection, Level, Question

ATTEMPTS = 50


def author_inspections(scenes: Iterable[Scene], seed: int) -> list[Inspection]:
    """Write the questions of all scenes, balanced within each split; the order of the scenes is kept.

    The defect types asked about are those that occur in the scenes.
    """
    ordered = list(scenes)
    types = sorted({name for scene in ordered for name in scene.types})
    written: dict[int, Inspection] = {}
    for split in dict.fromkeys(scene.split for scene in ordered):
        rng = random.Random(f"{seed} {split}")
        indices = [index for index, scene in enumerate(ordered) if scene.split == split]
        levels = _levels([ordered[index] for index in indices], rng)
        balance = Balance(rng)
        turns = list(zip(indices, levels, strict=True))
        rng.shuffle(turns)
        for index, level in turns:
            asked = balance.choose(ordered[index], level, list(possible_questions(ordered[index], level, types)))
            written[index] = _inspection(ordered[index], level, asked, types, rng)
    return [written[index] for index in range(len(ordered))]


def _levels(scenes: Sequence[Scene], rng: random.Random) -> list[Level]:
    """A level for each scene, as even as can be among normal parts and among the parts of each defect type."""
    strata: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        strata[scene.types].append(index)
    levels: list[Level] = [LEVELS[0]] * len(scenes)
    turn = 0
    for _, indices in sorted(strata.items()):
        rng.shuffle(indices)
        for index in indices:
            levels[index] = LEVELS[turn % len(LEVELS)]
            turn += 1
    return levels


def _inspection(
    scene: Scene, level: Level, asked: Sequence[Asked], types: Sequence[str], rng: random.Random
) -> Inspection:
    questions = [
        Question(
            id=f"q{number}",
            question=question.text,
            verdict=question.verdict,
            answers=_four_answers(scene, level, question, types, rng),
        )
        for number, question in enumerate(asked, start=1)
    ]
    return Inspection(
        id=scene.id,
        dataset=scene.dataset,
        category=scene.category,
        split=scene.split,
        level=level,
        test_image=scene.test_image,
        reference_image=scene.reference_image,
        defects=scene.defects,
        questions=tuple(questions),
    )


def _four_answers(
    scene: Scene, level: Level, asked: Asked, types: Sequence[str], rng: random.Random
) -> tuple[str, ...]:
    for _ in range(ATTEMPTS):
        answers = write_answers(ranked_claims(scene, asked, types, rng), scene.part, level, rng)
        if len(set(answers)) == len(answers):
            return answers
    raise RuntimeError(f"no four different answers to {asked.text!r} of {scene.id}")
