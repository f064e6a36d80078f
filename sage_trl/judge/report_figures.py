"""The figures of a judge's report: distributions, agreement with the ranks, with itself, and with people."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import cohen_kappa_score

from sage_trl.errors import DataError
from sage_trl.judge.model_judge import AnswerScores
from sage_trl.judge.prompts import CRITERIA, SCORES

RESAMPLES = 1000
HUMAN_COLUMNS = ("group_id", "question_id", "answer_index", *CRITERIA)
Cell = tuple[str, str, int]
HumanScores = Mapping[Cell, Mapping[str, int]]


def report_figures(
    answers: Sequence[AnswerScores], canaries: Sequence[tuple[str, Any]], human: HumanScores | None
) -> dict[str, Any]:
    """Everything that the report shows, ready for JSON. A figure that cannot be computed is None."""
    scored = [answer for answer in answers if answer.complete() is not None]
    return {
        "answers": len(answers),
        "scored": len(scored),
        "by_rank": _by_rank(scored),
        "ranks": _rank_agreement(scored),
        "repeats": _repeat_agreement(scored),
        "length": _length(scored),
        "canaries": _canaries(canaries),
        "human": None if human is None else _human_agreement(scored, human),
    }


def mean_scores(answer: AnswerScores) -> dict[str, float]:
    """Criterion -> mean over the repetitions, and their mean as `mle`, of a complete answer."""
    repeats = answer.complete() or []
    means = {name: fmean(getattr(scores, name) for scores in repeats) for name in CRITERIA}
    return {**means, "mle": fmean(means.values())}


def read_human_scores(path: Path) -> dict[Cell, dict[str, int]]:
    """Human scores of some answers from a CSV with the columns `HUMAN_COLUMNS`.

    Raises:
        DataError: missing file or column, a score that is no whole number from 1 to 5, or an answer twice.
    """
    remedy = f"write a CSV with the columns {', '.join(HUMAN_COLUMNS)} and scores 1-5"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError.at(path, None, f"cannot be read: {error}", remedy) from None
    human: dict[Cell, dict[str, int]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            cell = (row["group_id"], row["question_id"], int(row["answer_index"]))
            scores = {name: int(row[name]) for name in CRITERIA}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError.at(path, line, f"no score row: {error}", remedy) from None
        wrong = [name for name, score in scores.items() if score not in SCORES]
        if wrong:
            raise DataError.at(path, line, f"column {wrong[0]!r}: {scores[wrong[0]]} is not from 1 to 5", remedy)
        if cell in human:
            problem = f"a second row for {cell[0]}/{cell[1]} answer {cell[2]}"
            raise DataError.at(path, line, problem, "keep one row per answer")
        human[cell] = scores
    return human


def _by_rank(scored: Sequence[AnswerScores]) -> dict[str, dict[str, Any]]:
    """Rank (from 1) -> criterion -> mean, spread, counts of 1 to 5 over all repetitions, share of fives."""
    values: defaultdict[int, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in scored:
        for scores in answer.complete() or []:
            for name in CRITERIA:
                values[answer.answer_index][name].append(getattr(scores, name))
    return {
        str(rank + 1): {
            name: {
                "mean": fmean(found),
                "standard_deviation": pstdev(found),
                "counts": [found.count(score) for score in SCORES],
                "ceiling": found.count(SCORES[-1]) / len(found),
            }
            for name, found in criteria.items()
        }
        for rank, criteria in sorted(values.items())
    }


def _rank_agreement(scored: Sequence[AnswerScores]) -> dict[str, Any]:
    """How often the scores follow the expert order, over questions of which every answer is scored."""
    questions: defaultdict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for answer in scored:
        place = (answer.inspection.id, answer.question_id)
        questions[place].append((answer.answer_index, mean_scores(answer)["mle"]))
    orders = [[mle for _, mle in sorted(found)] for found in questions.values() if len(found) > 1]
    pairs = [pair for order in orders for pair in pairwise(order)]
    taus = [float(kendalltau(range(len(order)), [-mle for mle in order]).statistic) for order in orders]
    known = [tau for tau in taus if not np.isnan(tau)]
    return {
        "questions": len(orders),
        "in_order": _share([all(better >= worse for better, worse in pairwise(order)) for order in orders]),
        "strictly_in_order": _share([all(better > worse for better, worse in pairwise(order)) for order in orders]),
        "adjacent_right": _share([better > worse for better, worse in pairs]),
        "adjacent_tied": _share([better == worse for better, worse in pairs]),
        "adjacent_inverted": _share([better < worse for better, worse in pairs]),
        "kendall_tau": fmean(known) if known else None,
        "questions_with_one_score_for_all": len(taus) - len(known),
    }


def _repeat_agreement(scored: Sequence[AnswerScores]) -> dict[str, Any] | None:
    """Share of answers whose repetitions all agree, and the mean spread; None for one repetition."""
    repeated = [repeats for answer in scored if len(repeats := answer.complete() or []) > 1]
    if not repeated:
        return None
    figures: dict[str, Any] = {"answers": len(repeated), "repeats": len(repeated[0])}
    for name in CRITERIA:
        values = [[getattr(scores, name) for scores in repeats] for repeats in repeated]
        figures[name] = {
            "all_equal": _share([len(set(found)) == 1 for found in values]),
            "standard_deviation": fmean(pstdev(found) for found in values),
        }
    return figures


def _length(scored: Sequence[AnswerScores]) -> dict[str, Any]:
    """Rank correlation of score and length in characters, over all answers and inside each rank."""
    lengths = np.array([len(answer.answer) for answer in scored])
    mle = np.array([mean_scores(answer)["mle"] for answer in scored])
    ranks = np.array([answer.answer_index for answer in scored])
    inside = {
        str(rank + 1): _spearman(lengths[ranks == rank], mle[ranks == rank]) for rank in sorted(set(ranks.tolist()))
    }
    return {"spearman": _spearman(lengths, mle), "spearman_by_rank": inside}


def _spearman(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float | None:
    if len(left) < 3 or len(set(left.tolist())) == 1 or len(set(right.tolist())) == 1:
        return None
    return float(spearmanr(left, right).statistic)


def _canaries(canaries: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Kind -> how many were judged, the mean score, and how many got more than 2 on any criterion."""
    figures: dict[str, Any] = {}
    for kind in dict.fromkeys(kind for kind, _ in canaries):
        values = [
            [value[name] for name in CRITERIA] for found, value in canaries if found == kind and value is not None
        ]
        figures[kind] = {
            "asked": sum(found == kind for found, _ in canaries),
            "judged": len(values),
            "mean": fmean(fmean(scores) for scores in values) if values else None,
            "fell_for_it": sum(max(scores) > 2 for scores in values),
        }
    return figures


def _human_agreement(scored: Sequence[AnswerScores], human: HumanScores) -> dict[str, Any]:
    """Quadratic-weighted kappa per criterion, with a 95% bootstrap interval over questions."""
    pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in CRITERIA}
    places: list[tuple[str, str]] = []
    for answer in scored:
        cell = (answer.inspection.id, answer.question_id, answer.answer_index)
        if cell in human:
            places.append(cell[:2])
            means = mean_scores(answer)
            for name in CRITERIA:
                pairs[name].append((round(means[name]), human[cell][name]))
    figures: dict[str, Any] = {"rows": len(human), "answers": len(places)}
    for name in CRITERIA:
        found = np.array(pairs[name]).reshape(-1, 2)
        figures[name] = {"kappa": _kappa(found), "interval": _interval(found, places)}
    return figures


def _kappa(pairs: np.ndarray[Any, Any]) -> float | None:
    if len(pairs) < 2 or len(set(pairs.ravel().tolist())) == 1:
        return None
    return float(cohen_kappa_score(pairs[:, 0], pairs[:, 1], labels=SCORES, weights="quadratic"))


def _interval(pairs: np.ndarray[Any, Any], places: Sequence[tuple[str, str]]) -> list[float] | None:
    """Whole questions are drawn, for the answers of one are judged alike."""
    rows: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, place in enumerate(places):
        rows[place].append(row)
    clusters = list(rows.values())
    if len(clusters) < 2:
        return None
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(0, len(clusters), len(clusters))
        kappa = _kappa(pairs[[row for index in chosen for row in clusters[index]]])
        if kappa is not None:
            drawn.append(kappa)
    return [float(bound) for bound in np.percentile(drawn, [2.5, 97.5])] if drawn else None


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
