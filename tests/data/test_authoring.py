"""The rule author: five questions a group, true verdicts, ranked answers that the rule judge ranks alike."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_trl.data.authoring import Scene, author_inspections
from sage_trl.data.authoring.questions import TEMPLATES, possible_questions
from sage_trl.data.dataset import AdPlDirectory
from sage_trl.judge.rule import RuleJudge
from sage_trl.lexicon import WHOLE, read_sentence, read_verdict
from sage_trl.records import LEVELS, Defect

SCRATCH = Defect(type="scratch", box=(0.05, 0.05, 0.25, 0.25))  # centre (0.15, 0.15), upper left


def scene(*defects: Defect, number: int = 0, category: str = "plate") -> Scene:
    return Scene(f"s/{number}", "s", category, "train", "a.png", None, defects)


def test_shape_and_distinct_questions(authored: AdPlDirectory) -> None:
    for row in authored.inspections:
        assert len(row.questions) == 5
        assert len({question.question for question in row.questions}) == 5
        assert all(len(question.answers) == 4 for question in row.questions)
        assert all("  " not in text and "{" not in text for q in row.questions for text in (q.question, *q.answers))


def test_answers_open_with_the_right_verdict_down_to_rank_three(authored: AdPlDirectory) -> None:
    for row in authored.inspections:
        for question in row.questions:
            *right, wrong = [read_verdict(answer) for answer in question.answers]
            assert right == [question.verdict] * 3
            assert wrong is (not question.verdict)


def test_the_judge_gives_the_best_answer_full_marks_and_the_worst_the_least(authored: AdPlDirectory) -> None:
    judge = RuleJudge()
    lowest = []
    for row in authored.inspections:
        for question in row.questions:
            scores = [judge.score(row, question, answer) for answer in question.answers]
            told = all(defect.box != WHOLE for defect in row.defects)
            assert scores[0] == (5, 5 if told else 3, 5), question.answers[0]
            assert all(score.mle < scores[0].mle for score in scores[1:]), question.answers
            lowest.append(scores[3].mle == min(score.mle for score in scores))
    assert sum(lowest) > 0.9 * len(lowest)


def test_answers_of_one_rank_differ_in_quality(authored: AdPlDirectory) -> None:
    judge = RuleJudge()
    found = [
        {judge.score(row, q, q.answers[rank]).mle for row in authored.inspections for q in row.questions}
        for rank in (1, 2, 3)
    ]
    # Without places, only types and reasons are left to differ, and of good parts what is said of the whole.
    fewest = (2, 4, 2) if authored.info.name == "placeless" else (4, 4, 4)
    assert all(len(scores) >= least for scores, least in zip(found, fewest, strict=True)), found


def test_where_nothing_tells_the_place_nobody_speaks_of_it(placeless: AdPlDirectory) -> None:
    texts = [text for row in placeless.inspections for q in row.questions for text in (q.question, *q.answers)]
    assert not any(read_sentence(text).places for text in texts)
    assert any(row.defects for row in placeless.inspections)


def test_one_type_without_a_place_still_has_four_ranks() -> None:
    scenes = [scene(*([Defect(type="scratch", box=WHOLE)] if n % 2 else []), number=n) for n in range(30)]
    judge = RuleJudge()
    for row in author_inspections(scenes, 0):
        assert len(row.questions) == 5
        for question in row.questions:
            means = [judge.score(row, question, answer).mle for answer in question.answers]
            assert means[0] > means[1] > means[2] > means[3] or not row.defects, question.answers
            assert means[0] > max(means[1:]), question.answers


def test_places_are_named_of_those_photos_alone_that_have_a_mask() -> None:
    """Half the defective photos of a category have masks."""
    boxes = {1: SCRATCH.box, 2: WHOLE}
    scenes = [scene(*([Defect(type="scratch", box=boxes[n % 3])] if n % 3 else []), number=n) for n in range(90)]
    named = {0: 0, 1: 0, 2: 0}
    for number, row in enumerate(author_inspections(scenes, 0)):
        texts = [text for q in row.questions for text in (q.question, *q.answers)]
        named[number % 3] += any(read_sentence(text).places for text in texts)
    assert named == {0: 30, 1: 30, 2: 0}


def test_verdicts_by_hand() -> None:
    asked = {
        q.text: q.verdict
        for q in possible_questions(scene(SCRATCH), TEMPLATES["defect_identification"], ["scratch", "stain"])
    }
    assert asked["Is there any defect on this plate?"] is True
    assert asked["Is this plate free of defects?"] is False
    assert asked["Is there a scratch on this plate?"] is True
    assert asked["Is there a stain on this plate?"] is False
    assert asked["Is there a defect in the upper left?"] is True
    assert asked["Is there a defect in the lower right?"] is False
    assert asked["Is there a defect in the left half?"] is True


def test_a_place_that_the_defect_only_touches_is_not_asked_about() -> None:
    wide = Defect(type="scratch", box=(0.05, 0.05, 0.40, 0.25))  # centre in the upper left, reaches into the top
    texts = {q.text for q in possible_questions(scene(wide), TEMPLATES["defect_identification"], ["scratch"])}
    assert "Is there a defect in the upper left?" in texts
    assert "Is there a defect at the top?" not in texts


def test_same_seed_same_words() -> None:
    scenes = [scene(*([SCRATCH] if number % 2 else []), number=number) for number in range(12)]
    assert author_inspections(scenes, 3) == author_inspections(scenes, 3)
    assert author_inspections(scenes, 3) != author_inspections(scenes, 4)


def test_levels_are_even() -> None:
    scenes = [scene(*([SCRATCH] if number % 2 else []), number=number) for number in range(30)]
    assert Counter(row.level for row in author_inspections(scenes, 0)) == dict.fromkeys(LEVELS, 10)


@pytest.mark.parametrize("types", [["rust"], ["rust", "dent"], ["scratch", "rust", "short"]])
def test_unknown_types_and_few_types(types: list[str]) -> None:
    scenes = [
        scene(*([Defect(type=types[n % len(types)], box=(0.4, 0.4, 0.6, 0.6))] if n % 3 else []), number=n)
        for n in range(18)
    ]
    judge = RuleJudge()
    for row in author_inspections(scenes, 0):
        for question in row.questions:
            assert judge.score(row, question, question.answers[0]) == (5, 5, 5), question.answers[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_any_boxes_give_valid_rows(seed: int) -> None:
    rng = random.Random(seed)
    scenes = []
    for number in range(6):
        defects = []
        for _ in range(rng.randrange(4)):
            x, y, width, height = (
                rng.uniform(0, 0.8),
                rng.uniform(0, 0.8),
                rng.uniform(0.01, 0.2),
                rng.uniform(0.01, 0.2),
            )
            defects.append(Defect(type=rng.choice(["open", "short", "spur"]), box=(x, y, x + width, y + height)))
        scenes.append(scene(*defects, number=number, category="pcb"))
    scenes.append(scene(Defect(type="open", box=(0.1, 0.1, 0.2, 0.2)), number=6, category="pcb"))
    assert [row.id for row in author_inspections(scenes, seed)] == [one.id for one in scenes]
