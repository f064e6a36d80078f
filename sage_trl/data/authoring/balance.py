"""Chooses questions so that yes and no are equally often true of every wording, word and category.

The choice is greedy: each question goes where it evens out the counts so far. With chance alone, a few hundred groups
would leave wordings whose answer can be guessed without the pictures.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from sage_trl.data.authoring.questions import Asked, Probe
from sage_trl.data.authoring.scenes import Scene
from sage_trl.records import Level

QUESTIONS_PER_GROUP = 5
MOST_PER_PROBE: dict[Probe, int] = {"presence": 2, "type": 2, "place": 3, "cause": 2, "consequence": 2}
# Weight of a count's imbalance; counts of small sets are noisier and weigh less. Beyond the clip, all are alike.
_CLIP = 4


# Inspectors mostly ask for what may be wrong ("Is there a scratch?"); the opposite wording is the exception.
NEGATIVE_RARITY = 2.0


class Balance:
    """Counts of yes and no of one split, and the choice of the next group's questions."""

    def __init__(self, rng: random.Random) -> None:
        self._surplus: Counter[Hashable] = Counter()
        self._uses: Counter[Hashable] = Counter()
        self._rng = rng

    def choose(self, scene: Scene, level: Level, possible: Sequence[Asked]) -> list[Asked]:
        """Five questions (fewer if there are not as many) with different texts, and count them."""
        chosen: list[Asked] = []
        left = list(possible)
        probes: Counter[Probe] = Counter()
        topics: Counter[Hashable] = Counter()
        while left and len(chosen) < QUESTIONS_PER_GROUP:
            # Where no place can be asked about, other probes make up the number.
            within = [asked for asked in left if probes[asked.template.probe] < MOST_PER_PROBE[asked.template.probe]]
            best = min(within or left, key=lambda asked: self._cost(scene, level, asked) + 2.0 * topics[_topic(asked)])
            self._count(scene, level, best)
            chosen.append(best)
            probes[best.template.probe] += 1
            topics[_topic(best)] += 1
            left = [asked for asked in left if asked.text != best.text]
        self._rng.shuffle(chosen)
        return chosen

    def _cost(self, scene: Scene, level: Level, asked: Asked) -> float:
        sign = 1 if asked.verdict else -1
        cost = self._rng.random()
        for weight, key in _keys(scene, level, asked):
            surplus = sign * self._surplus[key]
            cost += weight * max(-_CLIP, min(_CLIP, surplus))
        rarity = 1.0 if asked.template.positive else NEGATIVE_RARITY
        uses = 0.02 * self._uses[asked.template.text] + 0.05 * self._uses[(asked.template.text, asked.words)]
        return cost + rarity * uses

    def _count(self, scene: Scene, level: Level, asked: Asked) -> None:
        for _, key in _keys(scene, level, asked):
            self._surplus[key] += 1 if asked.verdict else -1
        self._uses[asked.template.text] += 1
        self._uses[(asked.template.text, asked.words)] += 1


def _topic(asked: Asked) -> Hashable:
    return asked.template.probe, asked.slot


def _keys(scene: Scene, level: Level, asked: Asked) -> Iterator[tuple[float, Hashable]]:
    template, category = asked.template.text, scene.category
    yield 2.0, ("level", level)
    yield 2.0, ("template", template)
    yield 1.0, ("category", category, level)
    yield 0.5, ("category and template", category, template)
    if asked.slot is not None:
        yield 1.5, ("words", level, asked.words)
        yield 1.0, ("template and words", template, asked.words)
        yield 0.5, ("category and slot", category, asked.slot, asked.template.positive)
