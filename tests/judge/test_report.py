"""The report's figures against numbers worked out by hand, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_trl.data.dataset import read_ad_pl
from sage_trl.errors import DataError
from sage_trl.judge.canaries import CANARIES, canary_judgements
from sage_trl.judge.criteria import CriterionScores
from sage_trl.judge.model_judge import AnswerScores, JudgementOptions, collect, dataset_judgements, score_rows
from sage_trl.judge.report import write_report
from sage_trl.judge.report_figures import read_human_scores, report_figures
from tests.judge.judged_ad_pl import write_judged_ad_pl


def answer(question: str, rank: int, *repeats: tuple[int, int, int], text: str | None = None) -> AnswerScores:
    from tests.judge.test_rule import inspection

    scores = [CriterionScores(*repeat) for repeat in repeats]
    return AnswerScores(inspection(), question, rank, text or "x" * (10 + rank), list(scores), "because")


QUESTION_IN_ORDER = [
    answer("q1", 0, (5, 5, 5)),
    answer("q1", 1, (4, 4, 4)),
    answer("q1", 2, (2, 2, 2)),
    answer("q1", 3, (1, 1, 1)),
]
QUESTION_WITH_A_SWAP = [
    answer("q2", 0, (4, 4, 4)),
    answer("q2", 1, (5, 5, 5)),
    answer("q2", 2, (3, 3, 3)),
    answer("q2", 3, (3, 3, 3)),
]


def test_rank_agreement_by_hand() -> None:
    figures = report_figures([*QUESTION_IN_ORDER, *QUESTION_WITH_A_SWAP], [], None)
    ranks = figures["ranks"]
    assert ranks["questions"] == 2
    assert ranks["in_order"] == ranks["strictly_in_order"] == 0.5
    assert (ranks["adjacent_right"], ranks["adjacent_tied"], ranks["adjacent_inverted"]) == (4 / 6, 1 / 6, 1 / 6)
    # q1: tau 1. q2: 4 concordant, 1 discordant, 1 tie of 6 pairs: (4 - 1) / sqrt(6 * 5) (tau-b).
    assert ranks["kendall_tau"] == pytest.approx((1 + 3 / 30**0.5) / 2)
    assert figures["by_rank"]["1"]["type"] == {
        "mean": 4.5,
        "standard_deviation": 0.5,
        "counts": [0, 0, 0, 1, 1],
        "ceiling": 0.5,
    }


def test_repeats_and_incomplete_answers() -> None:
    agreeing, differing = answer("q1", 0, (5, 4, 3), (5, 4, 1)), answer("q1", 1, (2, 2, 2), (2, 2, 2))
    missing = answer("q1", 2, (1, 1, 1))
    missing.repeats.append(None)
    figures = report_figures([agreeing, differing, missing], [], None)
    assert (figures["answers"], figures["scored"]) == (3, 2)
    assert figures["repeats"]["type"]["all_equal"] == 1.0 and figures["repeats"]["logic"]["all_equal"] == 0.5
    assert figures["repeats"]["logic"]["standard_deviation"] == 0.5
    rows = list(score_rows([agreeing, differing, missing], "j"))
    assert [(row.answer_index, row.logic) for row in rows] == [(0, 2.0), (1, 2.0)]


def test_kappa_with_people_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_trl.judge.report_figures.RESAMPLES", 50)  # each gives the bounds that are expected here
    lines = ["group_id,question_id,answer_index,type,location,logic"]
    rated = [("q1", 0, 5), ("q1", 1, 4), ("q2", 0, 2), ("q2", 1, 1), ("no-such", 0, 1)]
    lines += [f"g,{q},{i},{t},{t},3" for q, i, t in rated]
    (tmp_path / "h.csv").write_text("\n".join(lines), encoding="utf-8")
    scored = [
        answer("q1", 0, (5, 5, 3)),
        answer("q1", 1, (4, 4, 3)),
        answer("q2", 0, (2, 1, 3)),
        answer("q2", 1, (1, 2, 3)),
    ]
    human = report_figures(scored, [], read_human_scores(tmp_path / "h.csv"))["human"]
    assert (human["rows"], human["answers"]) == (5, 4)
    assert human["type"]["kappa"] == 1.0 and human["type"]["interval"] == [1.0, 1.0]
    # Location: two differences of 1; expected squared difference over the margins {1,2,4,5} x {1,2,4,5} is
    # (2 * (1 + 9 + 16 + 4 + 9 + 1)) / 16 = 5 each, so kappa = 1 - (2 / 4) / 5.
    assert human["location"]["kappa"] == pytest.approx(0.9)
    assert human["logic"]["kappa"] is None  # everyone says 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("g,q1,0,6,1,1", "'type': 6"),
        ("g,q1,x,1,1,1", "invalid literal"),
        ("g,q1", "no score row"),
        ("g,q1,0,5,5,5\ng,q1,0,4,4,4", "h.csv:3: a second row for g/q1 answer 0"),
    ],
)
def test_faulty_human_scores(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "h.csv"
    path.write_text(f"group_id,question_id,answer_index,type,location,logic\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_human_scores(path)


def test_canaries_are_counted() -> None:
    low, high = {"type": 1, "location": 2, "logic": 1}, {"type": 5, "location": 5, "logic": 5}
    figures = report_figures([], [("empty", low), ("empty", high), ("empty", None)], None)["canaries"]
    assert figures["empty"] == {"asked": 3, "judged": 2, "mean": pytest.approx((4 / 3 + 5) / 2), "fell_for_it": 1}


def test_canaries_take_the_first_five_questions(tmp_path: Path) -> None:
    ad_pl = read_ad_pl(write_judged_ad_pl(tmp_path / "d", 2))
    judgements = [judgement for _, judgement in dataset_judgements(ad_pl, ad_pl.inspections, JudgementOptions())]
    found = list(canary_judgements(judgements))
    assert len(found) == 5 * len(CANARIES)
    assert {judgement.question.id for _, judgement in found} == {"q0", "q1", "q2", "q3", "q4"}
    assert {judgement.inspection.id for _, judgement in found} == {"g00000"}


def test_collect_keeps_repeats_together(tmp_path: Path) -> None:
    ad_pl = read_ad_pl(write_judged_ad_pl(tmp_path / "d", 1))
    asked = list(dataset_judgements(ad_pl, ad_pl.inspections, JudgementOptions(repeats=2)))
    values = [{"rationale": "r", "type": 1 + row % 5, "location": 1, "logic": 1} for row in range(40)]
    collected = collect(asked, [*values[:39], None])
    assert len(collected) == 20 and [s.type for s in collected[1].repeats if s] == [3, 4]
    assert collected[19].complete() is None


def test_the_file_stands_alone_and_escapes(tmp_path: Path) -> None:
    worse = answer("q1", 1, (5, 5, 5), text="<script>alert(1)</script>\x1b[31m")
    worse.rationale = "half a smile \ud83d"  # a JSON reply may escape it alone
    write_report(tmp_path / "r.html", [answer("q1", 0, (1, 1, 1)), worse], [("empty", None)], "gpt <4o>", None)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "gpt &lt;4o&gt;" in page
    assert "\x1b" not in page and "http" not in page
    assert page.count("data:image/png;base64,") == 2
    assert json.loads((tmp_path / "r.json").read_text())["scored"] == 2
