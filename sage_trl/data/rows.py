"""Rows for TRL: AD-PL groups as prompt/completion rows (SFT) or as preference rows (DPO, eq. 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from datasets import Dataset, Features, Image, List, Value
from datasets.arrow_writer import ArrowWriter
from datasets.fingerprint import get_temporary_cache_files_directory

from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.data.fact_sets import read_facts
from sage_trl.errors import DataError
from sage_trl.models.prompt import question_messages
from sage_trl.preferences.entropy import EntropyKind
from sage_trl.preferences.selection import PairChoice, is_inverted, select_preference_pairs
from sage_trl.records import FactSet, Inspection, JudgeScore, Question, Turns, iterate_records
from sage_trl.storage import file_sha256

RowKind = Literal["completion", "preference"]
ScoreTable = Mapping[tuple[str, str], Sequence[float]]

_ROWS_AT_A_TIME = 500
MESSAGES = List({"role": Value("string"), "content": Value("string")})
SHARED_FEATURES = {
    "images": List(Image()),
    "reference_image": Image(),
    "facts": List(Value("string")),
    "prompt": MESSAGES,
    "group_id": Value("string"),
    "question_id": Value("string"),
}
ROW_FEATURES: dict[RowKind, Features] = {
    "completion": Features({**SHARED_FEATURES, "completion": MESSAGES}),
    "preference": Features(
        {
            **SHARED_FEATURES,
            "chosen": MESSAGES,
            "rejected": MESSAGES,
            "delta_entropy": Value("float64"),
            "pair_kind": Value("string"),
        }
    ),
}


@dataclass
class PairCounts:
    """What became of the questions on their way to preference pairs. Nothing is dropped without being counted."""

    questions: int = 0
    incomplete: int = 0
    inverted: int = 0
    dropped: int = 0
    max_below_min: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """One line for the log."""
        return (
            f"{self.kinds['min']} min pairs and {self.kinds['max']} max pairs of {self.questions} questions; "
            f"{self.incomplete} questions with incomplete scores, {self.inverted} inverted pairs "
            f"({self.dropped} dropped), {self.max_below_min} questions with dH_max < dH_min"
        )


def load_ad_pl(
    directory: str | Path,
    *,
    split: str = "train",
    kind: RowKind = "completion",
    datasets: Sequence[str] | None = None,
    facts: str | Path | None = None,
    scores: str | Path | None = None,
    turns: Turns = "single",
    pairs: PairChoice = "both",
    entropy: EntropyKind = "term",
    drop_inverted: bool = False,
    drop_incomplete: bool = False,
    counts: PairCounts | None = None,
) -> Dataset:
    """Load an AD-PL directory as rows that our trainers, and TRL's own, take.

    Args:
        directory: the dataset's directory.
        split: which split.
        kind: `completion` rows hold the best answer a_1; `preference` rows hold one selected pair each.
        datasets: keep groups of these sources only.
        facts: path of `facts.jsonl`; None for rows without facts.
        scores: path of `scores.jsonl`, needed for `preference` rows.
        turns: `conversation` puts the group's earlier questions and best answers before each question (eq. 10).
        pairs: `both`, `min` or `max` (eq. 5).
        entropy: `term` or `surprisal` (eq. 4).
        drop_inverted: drop pairs whose loser the judge scores above the winner.
        drop_incomplete: leave out, and count, questions of which some answer has no score; else they are an error.
        counts: filled with what became of the questions.

    Raises:
        DataError: a fault of the directory, a test image without facts, or scores that are missing for some answers.
    """
    ad_pl = read_ad_pl(Path(directory))
    inspections = ad_pl.select(splits=[split], datasets=datasets)
    fact_sets = None if facts is None else read_facts(Path(facts))
    table: ScoreTable = {}
    if kind == "preference":
        if scores is None or not Path(scores).is_file():
            problem = f"{scores or directory}: preference rows need scores, and there are none"
            raise DataError(f"{problem}\n  remedy: run tools/score_mle.py --dataset {directory} --judge rule first")
        table = read_score_table(Path(scores), inspections, drop_incomplete)
    counts = counts if counts is not None else PairCounts()

    def rows() -> Iterator[dict[str, Any]]:
        for inspection in inspections:
            for shared, question in _question_rows(ad_pl, inspection, fact_sets, turns):
                if kind == "completion":
                    yield {**shared, "completion": _assistant(question.answers[0])}
                else:
                    mle = table[inspection.id, question.id]
                    yield from _preference_rows(shared, question, mle, pairs, entropy, drop_inverted, counts)

    made = _memory_mapped(rows(), ROW_FEATURES[kind])
    if not len(made):
        raise DataError(f"{directory}: split {split!r} gives no rows\n  remedy: check split, datasets and scores")
    return made


def _memory_mapped(rows: Iterator[dict[str, Any]], features: Features) -> Dataset:
    """Rows in a file that ends with the process: what they hold in memory does not grow with their number."""
    path = Path(get_temporary_cache_files_directory()) / f"{uuid4().hex}.arrow"
    with ArrowWriter(path=str(path), features=features, writer_batch_size=_ROWS_AT_A_TIME) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    return Dataset.from_file(str(path))


def read_score_table(path: Path, inspections: Sequence[Inspection], drop_incomplete: bool = False) -> ScoreTable:
    """MLE scores of every question by (group id, question id), in rank order; NaN where one is missing.

    Raises:
        DataError: a score twice, or, unless `drop_incomplete`, an answer of `inspections` without one.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for line, score in iterate_records(JudgeScore, path):
        answers = found.setdefault((score.group_id, score.question_id), {})
        if score.answer_index in answers:
            raise DataError.at(
                path,
                line,
                f"answer {score.answer_index} of {score.group_id!r}/{score.question_id!r} is scored twice",
                "keep one line per answer",
            )
        answers[score.answer_index] = score.mle
    table: dict[tuple[str, str], Sequence[float]] = {}
    missing: list[str] = []
    for inspection in inspections:
        for question in inspection.questions:
            answers = found.get((inspection.id, question.id), {})
            lacking = [i for i in range(len(question.answers)) if i not in answers]
            missing += [f"{inspection.id}/{question.id} answer {i}" for i in lacking]
            table[inspection.id, question.id] = [answers.get(i, float("nan")) for i in range(len(question.answers))]
    if missing and not drop_incomplete:
        raise DataError.at(
            path,
            None,
            f"scores missing for {len(missing)} answers, first {missing[0]}",
            "run tools/score_mle.py on this dataset, or leave those questions out with drop_incomplete: true",
        )
    return table


def _question_rows(
    ad_pl: AdPlDirectory, inspection: Inspection, fact_sets: Mapping[str, FactSet] | None, turns: Turns
) -> Iterator[tuple[dict[str, Any], Question]]:
    test_image = ad_pl.image_path(inspection.test_image)
    reference = None if inspection.reference_image is None else ad_pl.image_path(inspection.reference_image)
    facts: list[str] = []
    if fact_sets is not None:
        sha256 = file_sha256(test_image)
        if sha256 not in fact_sets:
            raise DataError.at(test_image, None, "no facts for this test image", "run tools/generate_facts.py first")
        facts = list(fact_sets[sha256].facts)
    earlier: list[tuple[str, str]] = []
    for question in inspection.questions:
        yield (
            {
                "images": [str(test_image)],
                "reference_image": None if reference is None else str(reference),
                "facts": facts,
                "prompt": question_messages(question.question, earlier),
                "group_id": inspection.id,
                "question_id": question.id,
            },
            question,
        )
        if turns == "conversation":
            earlier = [*earlier, (question.question, question.answers[0])]


def _preference_rows(
    shared: dict[str, Any],
    question: Question,
    mle: Sequence[float],
    pairs: PairChoice,
    entropy: EntropyKind,
    drop_inverted: bool,
    counts: PairCounts,
) -> Iterator[dict[str, Any]]:
    counts.questions += 1
    selected = select_preference_pairs(mle, pairs, entropy=entropy)
    gaps = {pair.kind: pair.delta_entropy for pair in selected}
    counts.incomplete += not selected
    counts.max_below_min += len(gaps) == 2 and gaps["max"] < gaps["min"]
    for pair in selected:
        inverted = is_inverted(mle, pair)
        counts.inverted += inverted
        if inverted and drop_inverted:
            counts.dropped += 1
            continue
        counts.kinds[pair.kind] += 1
        yield {
            **shared,
            "chosen": _assistant(question.answers[pair.winner]),
            "rejected": _assistant(question.answers[pair.loser]),
            "delta_entropy": pair.delta_entropy,
            "pair_kind": pair.kind,
        }


def _assistant(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]
