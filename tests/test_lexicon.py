"""What the author can write, the judge reads back: types, places, reasons, verdict, denial."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.lexicon import (
    CELLS,
    GOOD_PART,
    HALVES,
    KNOWN_TYPES,
    WHOLE,
    article,
    cell_of,
    edge_of,
    halves_of,
    place_noun,
    place_phrase,
    place_score,
    places_in_words,
    read_sentence,
    read_verdict,
    readable_category,
    readable_type,
    same_family,
    terms_for,
    touches,
)

TYPES = (*KNOWN_TYPES, "deep groove")
fraction = st.floats(0.0, 0.9)


@pytest.mark.parametrize("name", TYPES)
def test_nouns_are_read_as_their_type_and_denied_under_no(name: str) -> None:
    for noun in terms_for(name).nouns:
        said = read_sentence(f"Yes, there is {article(noun)} in the upper left.", ["deep groove"])
        assert said.types == {name} and said.places == ("upper left",) and said.verdict is True
        denied = read_sentence(f"No, there is no {noun} here.", ["deep groove"])
        assert denied.types == frozenset() and denied.denied_types == {name} and denied.verdict is False


@pytest.mark.parametrize("name", [*TYPES, GOOD_PART.name])
def test_clauses_are_read_as_reasons_of_their_type_alone(name: str) -> None:
    terms = GOOD_PART if name == GOOD_PART.name else terms_for(name)
    for clause in (*terms.evidence, *terms.causes, *terms.consequences):
        reading = read_sentence(f"Yes, because {clause}.", ["deep groove"])
        assert reading.reasons == {name}, clause
        assert not reading.places and not reading.everywhere and not reading.denial, clause
        assert reading.types <= ({name} if name == "deep groove" else set()), clause


@pytest.mark.parametrize("place", [*CELLS, *HALVES])
def test_places_are_read_back(place: str) -> None:
    assert read_sentence(f"Yes, there is a stain {place_phrase(place)}.").places == (place,)
    assert read_sentence(f"The {place_noun(place)} is odd.").places == (place,)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes, it is.", True),
        ("no", False),
        ("  No. Nothing", False),
        ("Answer: yes", True),
        ("Nothing", None),
        ("", None),
        ("是的，左上有划痕。", True),
        ("有", True),
        ("不是，没有缺陷。", False),
        ("没有。", False),
        ("有划痕", None),
        ("不明显", None),
    ],
)
def test_verdict_is_the_first_word(text: str, verdict: bool | None) -> None:
    assert read_verdict(text) is verdict


@pytest.mark.parametrize(
    "text",
    [
        "there is no defect anywhere",
        "it is free of defects",
        "no visible fault can be seen",
        "nothing is wrong",
        "flawless",
    ],
)
def test_denials(text: str) -> None:
    assert read_sentence(f"No, {text}.").denial


@pytest.mark.parametrize("text", ["there is a scratch", "the part differs", "nothing can be fixed to it", "a defect"])
def test_no_denials(text: str) -> None:
    assert not read_sentence(f"Yes, {text}.").denial


def test_the_longest_noun_wins() -> None:
    assert read_sentence("Yes, a deep scratch.", ["deep scratch"]).types == {"deep scratch"}
    assert read_sentence("Yes, a scratch.", ["deep scratch"]).types == {"scratch"}


def test_instead_of_denies() -> None:
    reading = read_sentence("No, there is a stain instead of a scratch.")
    assert reading.types == {"stain"} and reading.denied_types == {"scratch"}


def test_cells_halves_and_scores_by_hand() -> None:
    box = (0.05, 0.70, 0.25, 0.90)  # centre (0.15, 0.8): left column, lowest row
    assert cell_of(box) == "lower left"
    assert halves_of(box) == ("left half", "lower half")
    assert place_score("lower left", box) == 5
    assert place_score("left half", box) == 4
    assert place_score("centre", box) == 3
    assert place_score(None, box) == 2
    assert place_score("upper left", box) == 1
    assert place_score("upper half", box) == 1


@given(fraction, fraction)
def test_every_box_touches_its_own_cell_and_halves(x: float, y: float) -> None:
    box = (x, y, x + 0.1, y + 0.1)
    for place in (cell_of(box), *halves_of(box)):
        assert touches(box, place)
        assert place_score(place, box) >= 4


def test_families_and_articles() -> None:
    assert same_family("scratch", "stain") and not same_family("scratch", "deformation")
    assert not same_family("rust", "dent")
    assert [article("open circuit"), article("nick"), article("spurious copper")] == [
        "an open circuit",
        "a nick",
        "spurious copper",
    ]


def test_the_whole_picture_is_no_place() -> None:
    # Nothing tells where the defect is: no name of a place is right or wrong, and none is missing.
    assert {place_score(place, WHOLE) for place in (*CELLS, *HALVES, None)} == {3}
    assert places_in_words([WHOLE]) == ""
    assert places_in_words([WHOLE, (0.0, 0.0, 0.2, 0.2)]) == "in the upper left"


def test_places_in_words_by_hand() -> None:
    strip, corner = (0.0, 0.1, 0.1, 0.9), (0.1, 0.1, 0.2, 0.2)
    assert edge_of(strip) == "left" and edge_of((0.9, 0.2, 1.0, 0.8)) == "right"
    assert edge_of((0.1, 0.0, 0.8, 0.15)) == "top" and edge_of((0.1, 0.85, 0.8, 1.0)) == "bottom"
    # Too short, too far in, too wide.
    assert {edge_of(box) for box in (corner, (0.4, 0.1, 0.5, 0.9), (0.0, 0.1, 0.4, 0.9))} == {None}
    assert places_in_words([]) == ""
    assert places_in_words([corner]) == places_in_words([corner, corner]) == "in the upper left"
    assert places_in_words([strip, corner]) == "along the left edge and in the upper left"
    three = places_in_words([strip, corner, (0.4, 0.4, 0.6, 0.6)])
    assert three == "along the left edge, in the upper left and in the centre"


LABELS = [
    "scratch_head",
    "thread_top",
    "color",
    "flip",
    "top_layer-lifted",
    "BadWeld",
    "scratches",
    "burnt",
    "anomalous",
]


@pytest.mark.parametrize("label", LABELS)
def test_readable_types_are_read_back_and_name_no_place(label: str) -> None:
    name = readable_type(label)
    assert name == name.lower() and not set("_-") & set(name)
    for noun in terms_for(name).nouns:
        said = read_sentence(f"Yes, there is {article(noun)} in the centre.", [name])
        assert said.types == {name} and said.places == ("centre",) and not said.reasons


def test_readable_names_by_hand() -> None:
    assert readable_type("scratch_head") == "head scratch" and readable_type("Pin-Hole") == "pin-hole"
    assert readable_type("misplaced") == "misplacement" and readable_type("loose screws") == "loose screw"
    assert [readable_category(name) for name in ("pcb1", "metal_nut", "bottle cap")] == [
        "board",
        "metal nut",
        "bottle cap",
    ]
