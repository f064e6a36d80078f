"""From replies to sentences."""

import pytest

from sage_trl.facts.sentences import choose_sentences, split_sentences


@pytest.mark.parametrize(
    ("reply", "sentences"),
    [
        ("A plate of steel. It may rust.", ["A plate of steel.", "It may rust."]),
        ("1. **Scratches**: thin lines.\n2) It may rust;\n(c) dents", ["Scratches: thin lines.", "It may rust."]),
        (
            "- Thin scratches\n- Stains, e.g. oil or 3.5 mm of rust.\n",
            ["Thin scratches.", "Stains, e.g. oil or 3.5 mm of rust."],
        ),
        ("Sure, I can help. Here are two facts:\n* It may rust.", ["It may rust."]),
        ("Common faults:\n\nCracks appear. They gro", ["Cracks appear."]),
        ("What is it? It is a screw.", ["It is a screw."]),
        ("It holds <fact> and more. It may rust.", ["It may rust."]),
        ("零件表面可能有划痕。边缘可能有毛刺。", ["零件表面可能有划痕。", "边缘可能有毛刺。"]),
        ("", []),
        ("and and and and", []),
    ],
)
def test_split(reply, sentences):
    assert split_sentences(reply) == sentences


def test_each_reply_in_turn_and_nothing_twice():
    replies = [["It may rust.", "It is steel."], ["it may RUST!", "It bends."], []]
    assert choose_sentences(replies, 10) == ["It may rust.", "It is steel.", "It bends."]
    assert choose_sentences(replies, 2) == ["It may rust.", "It is steel."]
