"""The rule author: five related questions on each image pair, each with its verdict and four ranked answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sage_trl.data.authoring.balance import Balance
from sage_trl.data.authoring.claims import ranked_claims
from sage_trl.data.authoring.questions import TEMPLATES, Asked, Template, possible_questions
from sage_trl.data.authoring.scenes import Scene
from sage_trl.data.authoring.wording import write_answers
from sage_trl.lexicon import has_place
from sage_trl.records import LEVELS, Defect, Inspection, Level, Question

Author = Callable[[Sequence[Scene], int, Callable[[str], Path]], list[Inspection | None]]
"""From scenes, a seed, and where an image lies, to the group of each scene; None for a group that is to be left out."""

ATTEMPTS = 50
# A wrong answer names one of the other types; with fewer types than this it would always be the same one.
ENOUGH_TYPES = 3


def author_by_rule(scenes: Sequence[Scene], seed: int, _: Callable[[str], Path]) -> list[Inspection | None]:
    """The rule author as an `Author`; it needs no look at the images."""
    return [*author_inspections(scenes, seed)]


def author_inspections(scenes: Iterable[Scene], seed: int) -> list[Inspection]:
    """Write the questions of all scenes, balanced within each split; the order of the scenes is kept.

    The defect types asked about are those that occur in the category: one that no part of it ever has would be answered
    no without a look. Wrong answers may name any type where the category has few. Where the place of a defect is not
    known, neither a question nor an answer speaks of places.
    """
    ordered = list(scenes)
    named = _types_to_name(_types_by_category(ordered))
    placed = _categories_with_places(ordered)
    written: dict[int, Inspection] = {}
    for index, level, asked, rng in choose_questions(ordered, seed, TEMPLATES):
        scene = ordered[index]
        types = named[scene.category]
        places = scene.category in placed
        answers = [_four_answers(scene, level, question, types, rng, names_places=places) for question in asked]
        written[index] = make_inspection(scene, level, asked, answers)
    return [written[index] for index in range(len(ordered))]


def choose_questions(
    scenes: Sequence[Scene], seed: int, templates: Mapping[Level, Sequence[Template]]
) -> Iterator[tuple[int, Level, list[Asked], random.Random]]:
    """A level and five questions for each scene, balanced within each split, in an order of chance.

    Yields:
        Index of the scene, level, questions, and the split's random numbers, which the caller may draw from.
    """
    types = _types_by_category(scenes)
    placed = _categories_with_places(scenes)
    for split in dict.fromkeys(scene.split for scene in scenes):
        rng = random.Random(f"{seed} {split}")
        indices = [index for index, scene in enumerate(scenes) if scene.split == split]
        levels = _levels([scenes[index] for index in indices], rng)
        balance = Balance(rng)
        turns = list(zip(indices, levels, strict=True))
        rng.shuffle(turns)
        for index, level in turns:
            scene = scenes[index]
            own = [one for one in templates[level] if one.probe != "place" or scene.category in placed]
            possible = possible_questions(scene, own, types[scene.category])
            yield index, level, balance.choose(scene, level, list(possible)), rng


def _types_by_category(scenes: Iterable[Scene]) -> dict[str, list[str]]:
    types: defaultdict[str, set[str]] = defaultdict(set)
    for scene in scenes:
        types[scene.category].update(scene.types)
    return {category: sorted(names) for category, names in types.items()}


def _categories_with_places(scenes: Sequence[Scene]) -> set[str]:
    """Categories of whose places may be spoken: some defect's place is known, of theirs or, if they have none, of all.

    In others each question about a place would be on a good part, and answered no without a look.
    """
    defects: defaultdict[str, list[Defect]] = defaultdict(list)
    for scene in scenes:
        defects[scene.category] += scene.defects
    everything = [defect for own in defects.values() for defect in own]
    return {name for name, own in defects.items() if any(has_place(defect.box) for defect in own or everything)}


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


def make_inspection(
    scene: Scene, level: Level, asked: Sequence[Asked], answers: Iterable[tuple[str, ...]]
) -> Inspection:
    """The group of a scene: its questions, each with its ranked answers."""
    questions = [
        Question(id=f"q{number}", question=question.text, verdict=question.verdict, answers=ranked)
        for number, (question, ranked) in enumerate(zip(asked, answers, strict=True), start=1)
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
        unit=scene.unit,
    )


def _four_answers(
    scene: Scene, level: Level, asked: Asked, types: Sequence[str], rng: random.Random, *, names_places: bool
) -> tuple[str, ...]:
    for _ in range(ATTEMPTS):
        claims = ranked_claims(scene, asked, types, rng, names_places=names_places)
        answers = write_answers(claims, scene.part, level, rng)
        if len(set(answers)) == len(answers):
            return answers
    raise RuntimeError(f"no four different answers to {asked.text!r} of {scene.id}")
