"""The report on a judge: one HTML file with everything inside, and its figures as JSON beside it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from sage_trl.errors import DataError
from sage_trl.judge.model_judge import AnswerScores
from sage_trl.judge.prompts import CRITERIA, SCORES
from sage_trl.judge.report_figures import HumanScores, mean_scores, report_figures
from sage_trl.storage import atomic_writer, write_json

WORST_SHOWN = 10
COLOURS = ("#1b6ca8", "#4fa3d1", "#f0a35e", "#c0504d")


def write_report(
    path: Path,
    answers: Sequence[AnswerScores],
    canaries: Sequence[tuple[str, Any]],
    judge: str,
    human: HumanScores | None,
) -> None:
    """Write `path` and, with the suffix `.json`, its figures.

    Args:
        path: the HTML file.
        answers: all answers of the run, scored or not.
        canaries: (kind, judgement or None).
        judge: its name.
        human: scores by people, see `read_human_scores`.

    Raises:
        DataError: a file cannot be written.
    """
    figures = {"judge": judge, **report_figures(answers, canaries, human)}
    scored = [answer for answer in answers if answer.complete() is not None]
    plots = [_distributions(figures["by_rank"]), _lengths(scored)] if scored else []
    # Answers are strangers' text: jinja2 escapes everything that it fills in.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sage_trl.judge", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = _shown
    page = environment.get_template("report.html.jinja").render(
        figures=figures, plots=plots, criteria=CRITERIA, inverted=_most_inverted(scored)
    )
    try:
        with atomic_writer(path) as stream:
            stream.write(page)
        write_json(path.with_suffix(".json"), figures)
    except OSError as error:
        remedy = "write to another --report; the judgements are cached"
        raise DataError.at(path, None, f"cannot be written: {error.strerror}", remedy) from None


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _most_inverted(scored: Sequence[AnswerScores]) -> list[dict[str, Any]]:
    """Answers that the judge scores highest above the next better rank of the same question."""
    by_place = {(a.inspection.id, a.question_id, a.answer_index): a for a in scored}
    found: list[dict[str, Any]] = []
    for (group, question, index), worse in by_place.items():
        better = by_place.get((group, question, index - 1))
        if better is None:
            continue
        gap = mean_scores(worse)["mle"] - mean_scores(better)["mle"]
        if gap > 0:
            place = f"{group} {question}: rank {index + 1} over {index}"
            texts = {"worse": _escaped(worse.answer), "better": _escaped(better.answer)}
            found.append({"gap": gap, "place": place, **texts, "rationale": _escaped(worse.rationale or "")})
    return sorted(found, key=lambda row: -row["gap"])[:WORST_SHOWN]


def _escaped(text: str) -> str:
    """Control characters made visible, and halves of characters, which models emit at times, replaced."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="replace").decode()


def _distributions(by_rank: dict[str, dict[str, Any]]) -> str:
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots(1, len(CRITERIA), sharey=True)
    width = 0.8 / len(by_rank)
    for axis, name in zip(axes, CRITERIA, strict=True):
        for number, (rank, criteria) in enumerate(by_rank.items()):
            counts = criteria[name]["counts"]
            places = [score + (number - (len(by_rank) - 1) / 2) * width for score in SCORES]
            shares = [count / sum(counts) for count in counts]
            axis.bar(places, shares, width, label=f"rank {rank}", color=COLOURS[number % len(COLOURS)])
        axis.set(title=name, xlabel="score", xticks=SCORES)
    axes[0].set_ylabel("share of answers")
    axes[-1].legend(fontsize="small")
    return _png(figure)


def _lengths(scored: Sequence[AnswerScores]) -> str:
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    for rank in sorted({answer.answer_index for answer in scored}):
        group = [answer for answer in scored if answer.answer_index == rank]
        scores = [mean_scores(answer)["mle"] for answer in group]
        colour = COLOURS[rank % len(COLOURS)]
        axis.scatter([len(a.answer) for a in group], scores, 6, colour, alpha=0.4, label=f"rank {rank + 1}")
    axis.set(xlabel="length of the answer, characters", ylabel="MLE score")
    axis.legend(fontsize="small")
    return _png(figure)


def _png(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return base64.b64encode(stream.getvalue()).decode()
