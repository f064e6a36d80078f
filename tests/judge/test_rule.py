"""The rule judge against scores set by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.errors import SageError
from sage_trl.judge.criteria import CriterionScores
from sage_trl.judge.rule import RuleJudge
from sage_trl.judge.scorer import open_judge, score_answers
from sage_trl.judge.scripted import ScriptedJudge
from sage_trl.judge.summary import summarise_scores
from sage_trl.lexicon import WHOLE
from sage_trl.records import Defect, Inspection, Question

STAIN = Defect(type="stain", box=(0.7, 0.1, 0.9, 0.3))  # centre (0.8, 0.2), upper right


def inspection(*defects: Defect, verdict: bool | None = True, answers: tuple[str, ...] = ("Yes.", "No.")) -> Inspection:
    return Inspection(
        id="g",
        dataset="d",
        category="plate",
        split="train",
        level="defect_identification",
        test_image="a.png",
        reference_image=None,
        defects=defects,
        questions=(Question(id="q1", question="Is there a defect?", verdict=verdict, answers=answers),),
    )


def scored(row: Inspection, answer: str) -> tuple[float, float, float]:
    return tuple(RuleJudge().score(row, row.questions[0], answer))


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("Yes, there is a stain in the upper right, because some fluid dried on it.", (5, 5, 5)),
        ("Yes, there is a smudge in the right half, because some fluid dried on it.", (5, 4, 5)),
        ("Yes, there is a stain at the top, because it looks odd there.", (5, 3, 3)),
        ("Yes, there is a stain, because a thin line runs over the surface.", (5, 2, 2)),
        ("Yes, there is a scratch in the lower left, because it rubbed against a sharp tool.", (3, 1, 2)),
        ("Yes, there is a deformation in the upper right, because the outline is bent.", (2, 5, 2)),
        ("Yes, there is a defect.", (3, 2, 3)),
        ("Yes, a stain in the upper right and a stain in the lower left, as oil dripped on it.", (5, 3, 5)),
        ("No, there is a stain in the upper right, because some fluid dried on it.", (2, 5, 2)),
        ("No, there is no defect anywhere, because every detail agrees with the reference.", (1, 1, 1)),
        ("It is a stain in the upper right, because some fluid dried on it.", (2, 5, 2)),
    ],
)
def test_on_a_stained_part(answer: str, scores: tuple[float, float, float]) -> None:
    assert scored(inspection(STAIN), answer) == scores


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("No, there is no defect anywhere, because every detail agrees with the reference.", (5, 5, 5)),
        ("No, there is no defect, because every detail agrees with the reference.", (5, 3, 5)),
        ("No, nothing is wrong in the upper left, because it looks fine.", (5, 2, 3)),
        ("No, there is no defect anywhere, and it is normal that the outline is bent.", (5, 5, 2)),
        ("No, there is a scratch in the centre, as it rubbed against a sharp tool.", (1, 1, 1)),
        ("Yes, there is a stain at the top, because some fluid dried on it.", (1, 1, 1)),
    ],
)
def test_on_a_good_part(answer: str, scores: tuple[float, float, float]) -> None:
    assert scored(inspection(verdict=False), answer) == scores


@pytest.mark.parametrize("where", ["", " in the centre", " in the upper left", " in the left half"])
def test_where_nothing_tells_the_place_none_is_better(where: str) -> None:
    row = inspection(STAIN.model_copy(update={"box": WHOLE}))
    assert scored(row, f"Yes, there is a stain{where}, because some fluid dried on it.") == (5, 3, 5)


def test_an_open_question_has_no_verdict_to_miss() -> None:
    row = inspection(STAIN, verdict=None)
    assert scored(row, "There is a stain in the upper right, because some fluid dried on it.") == (5, 5, 5)


def test_of_two_defects_the_named_one_counts() -> None:
    row = inspection(STAIN, Defect(type="scratch", box=(0.1, 0.7, 0.3, 0.9)))
    assert scored(row, "Yes, a scratch in the lower left, as it rubbed against a sharp tool.") == (5, 5, 5)
    assert scored(row, "Yes, a scratch in the upper right, as it rubbed against a sharp tool.") == (5, 1, 5)


@given(st.text(max_size=200))
def test_any_text_gets_whole_scores_from_one_to_five(text: str) -> None:
    for row in (inspection(STAIN), inspection(verdict=False)):
        assert set(scored(row, text)) <= {1, 2, 3, 4, 5}


def test_mle_is_the_mean() -> None:
    assert CriterionScores(5, 4, 3).mle == 4.0


def test_scores_come_in_the_order_of_the_dataset() -> None:
    judge = ScriptedJudge({"Yes.": CriterionScores(5, 5, 5), "No.": CriterionScores(1, 2, 3)})
    rows = list(score_answers(judge, [inspection(STAIN)]))
    assert [(row.answer_index, row.mle, row.judge) for row in rows] == [(0, 5.0, "scripted"), (1, 2.0, "scripted")]
    assert [answer for _, _, answer in judge.asked] == ["Yes.", "No."]


def test_other_judges() -> None:
    assert open_judge("rule").name == "rule"
    for name, said in (("openai", "one by one"), ("nope", "is unknown")):
        with pytest.raises(SageError, match=said):
            open_judge(name)


def test_summary_by_hand() -> None:
    answers = ("a", "b", "c", "d")
    marks = {"a": (5, 5, 5), "b": (5, 4, 5), "c": (2, 3, 2), "d": (1, 1, 1)}
    judge = ScriptedJudge({text: CriterionScores(*mark) for text, mark in marks.items()})
    summary = summarise_scores(score_answers(judge, [inspection(STAIN, answers=answers)]))
    # S = 5, 14/3, 7/3, 1 gives p = 0.5542, 0.3971, 0.0385, 0.0102 and H = 0.3271, 0.3667, 0.1254, 0.0466 (eq. 4):
    # adjacent gaps 0.0397, 0.2413, 0.0788, so the first pair is the minimum one; best against worst 0.2805.
    assert summary.criteria[1]["location"] == (4.0, 0.0)
    assert summary.delta_entropy["min"] == pytest.approx([0.03965], abs=1e-5)
    assert summary.delta_entropy["max"] == pytest.approx([0.28050], abs=1e-5)
    assert summary.min_ranks == {0: 1}
    assert summary.max_below_min == 0 and summary.inverted.total() == 0
