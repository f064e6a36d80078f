"""The rule author: five related questions on each image pair, each with its verdict and four ranked answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sage_trl.data.authoring.balance import Balance
from sage_trl.data.authoring.claims import ranked_claims
from sage_trl.data.authoring.questions import Asked, possible_questions
from sage_trl.data.authoring.scenes import Scene
from sage_trl.data.authoring.wording import write_answers
from sage_trl.records import LEVELS, Inspection, Level, Question

ATTEMPTS = 50
# A wrong answer names one of the other types; with fewer types than this it would always be the same one.
ENOUGH_TYPES = 3


def author_inspections(scenes: Iterable[Scene], seed: int) -> list[Inspection]:
    """Write the questions of all scenes, balanced within each split; the order of the scenes is kept.

    The defect types asked about are those that occur in the category: one that no part of it ever has would be answered
    no without a look. Wrong answers may name any type where the category has few.
    """
    ordered = list(scenes)
    types = _types_by_category(ordered)
    named = _types_to_name(types)
    written: dict[int, Inspection] = {}
    for split in dict.fromkeys(scene.split for scene in ordered):
        rng = random.Random(f"{seed} {split}")
        indices = [index for index, scene in enumerate(ordered) if scene.split == split]
        levels = _levels([ordered[index] for index in indices], rng)
        balance = Balance(rng)
        turns = list(zip(indices, levels, strict=True))
        rng.shuffle(turns)
        for index, level in turns:
            scene = ordered[index]
            asked = balance.choose(scene, level, list(possible_questions(scene, level, types[scene.category])))
            written[index] = _inspection(scene, level, asked, named[scene.category], rng)
    return [written[index] for index in range(len(ordered))]


def _types_by_category(scenes: Iterable[Scene]) -> dict[str, list[str]]:
    types: defaultdict[str, set[str]] = defaultdict(set)
    for scene in scenes:
        types[scene.category].update(scene.types)
    return {category: sorted(names) for category, names in types.items()}


def _types_to_name(types: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The types that answers on a category may name: its own, or all where it has too few to go wrong."""
    everything = sorted({name for names in types.values() for name in names})
    return {category: names if len(names) >= ENOUGH_TYPES else everything for category, names in types.items()}


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
