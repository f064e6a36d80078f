"""Nothing but the images may give an answer away: neither wording, nor length, nor facts."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.images import open_image
from sage_trl.facts.template_bank import TemplateBank
from sage_trl.facts.writer import Part
from sage_trl.lexicon import readable_category
from sage_trl.records import LEVELS, Inspection, Question
from tests.data.guesser import bags_of_words, guessed_share, words_of

# A few points above chance; the standard error on 900 questions is 1.7 points.
FEW_POINTS = 0.05


def questions(rows: Sequence[Inspection]) -> list[tuple[Inspection, Question]]:
    return [(row, question) for row in rows for question in row.questions]


def verdicts(rows: Sequence[Inspection]) -> np.ndarray:
    return np.array([int(question.verdict is True) for _, question in questions(rows)])


def halves(data: AdPlDirectory) -> list[tuple[tuple[Inspection, ...], tuple[Inspection, ...]]]:
    """(known, asked): across splits both ways, and across groups inside the training split."""
    train, validation = data.select(["train"]), data.select(["validation"])
    mixed = list(train)
    random.Random(0).shuffle(mixed)
    inside = (tuple(mixed[:240]), tuple(mixed[240:]))
    return [(train, validation), (validation, train), inside]


def test_the_guesser_guesses_what_can_be_guessed() -> None:
    known = np.random.default_rng(0).normal(size=(400, 3))
    assert guessed_share(known[:200], (known[:200, 1] > 0) * 1, known[200:], (known[200:, 1] > 0) * 1) > 0.95


@pytest.mark.parametrize("split", ["train", "validation", "test", "unseen"])
@pytest.mark.parametrize("level", LEVELS)
def test_yes_is_true_of_half_the_questions(authored: AdPlDirectory, split: str, level: str) -> None:
    rows = [row for row in authored.select([split]) if row.level == level]
    assert 0.45 <= verdicts(rows).mean() <= 0.55


@pytest.mark.parametrize("split", ["train", "validation"])
def test_yes_is_true_of_half_the_questions_of_each_wording(authored: AdPlDirectory, split: str) -> None:
    counts: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    for row, question in questions(authored.select([split])):
        counts[question.question.replace(readable_category(row.category), "part")][question.verdict is True] += 1
    # With types by category, fewer questions can even out what others left uneven: about as much as 60 coins do.
    # Without places, parts of one type have two wordings alone whose yes is another part's no.
    most = {"synthetic": 4, "foreign": 8, "placeless": 12}[authored.info.name]
    assert all(abs(count[True] - count[False]) <= most for count in counts.values())
    assert all(0.4 <= c[True] / c.total() <= 0.6 for c in counts.values() if c.total() >= 20)


def test_wording_of_the_question_does_not_tell_the_verdict(authored: AdPlDirectory) -> None:
    for known, asked in halves(authored):
        texts = [question.question for _, question in questions(known)]
        vocabulary = sorted({word for text in texts for word in words_of(text)})
        seen = bags_of_words(texts, vocabulary)
        new = bags_of_words([question.question for _, question in questions(asked)], vocabulary)
        assert guessed_share(seen, verdicts(known), new, verdicts(asked)) <= 0.5 + FEW_POINTS


def length_features(text: str) -> list[float]:
    words, letters = len(text.split()), len(text)
    return [words, letters, words**2, letters**2, letters / words, *(float(words == n) for n in range(8, 34))]


def test_length_of_the_question_does_not_tell_the_verdict(authored: AdPlDirectory) -> None:
    for known, asked in halves(authored):
        seen, new = (np.array([length_features(q.question) for _, q in questions(rows)]) for rows in (known, asked))
        assert guessed_share(seen, verdicts(known), new, verdicts(asked)) <= 0.5 + FEW_POINTS


def test_length_of_an_answer_does_not_tell_its_rank(authored: AdPlDirectory) -> None:
    for known, asked in halves(authored):
        features, ranks = [], []
        for rows in (known, asked):
            answers = [answer for _, q in questions(rows) for answer in q.answers]
            features.append(np.array([length_features(answer) for answer in answers]))
            ranks.append(np.arange(len(answers)) % 4)
        assert guessed_share(features[0], ranks[0], features[1], ranks[1], classes=4) <= 0.25 + FEW_POINTS


def test_answers_of_a_question_are_equally_long(authored: AdPlDirectory) -> None:
    spread = [
        (len({len(a.split()) for a in q.answers}), max(map(len, q.answers)) - min(map(len, q.answers)))
        for _, q in questions(authored.inspections)
    ]
    assert np.mean([words == 1 for words, _ in spread]) > 0.99
    # Nouns such as "frayed fabric border" are too long to be evened out each time.
    assert np.mean([letters <= 3 for _, letters in spread]) > (0.9 if authored.info.name == "synthetic" else 0.75)


def test_facts_alone_tell_neither_verdict_nor_label(synthetic: AdPlDirectory) -> None:
    bank = TemplateBank()
    for known, asked in halves(synthetic)[:1]:
        facts = [
            [
                " ".join(bank.write([Part(row.category, open_image(synthetic.image_path(row.test_image)))])[0])
                for row in rows
            ]
            for rows in (known, asked)
        ]
        vocabulary = sorted({word for text in facts[0] for word in words_of(text)})
        seen, new = (bags_of_words(texts, vocabulary) for texts in facts)
        labels = [np.array([int(bool(row.defects)) for row in rows]) for rows in (known, asked)]
        assert guessed_share(seen, labels[0], new, labels[1]) <= 0.6 + FEW_POINTS  # 0.6 are defective
        guessed = guessed_share(np.repeat(seen, 5, 0), verdicts(known), np.repeat(new, 5, 0), verdicts(asked))
        assert guessed <= 0.5 + FEW_POINTS


def test_best_and_worst_answers_deny_defects_about_as_often(authored: AdPlDirectory) -> None:
    denied = [
        [("no defect" in a or "nothing is wrong" in a) for a in q.answers] for _, q in questions(authored.inspections)
    ]
    shares = np.mean(denied, axis=0)
    assert 0.2 < shares[0] < 0.6 and 0.1 < shares[3] < 0.6


def test_vocabulary_is_modest(authored: AdPlDirectory, tmp_path: Path) -> None:
    texts = [text for _, q in questions(authored.inspections) for text in (q.question, *q.answers)]
    assert len({word for text in texts for word in words_of(text)}) < 600
