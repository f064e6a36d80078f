"""The language of defects: the rule author writes with it and the rule judge reads with it."""

from sage_trl.lexicon.defects import GOOD_PART, KNOWN_TYPES, DefectTerms, article, same_family, terms_for
from sage_trl.lexicon.names import readable_category, readable_type
from sage_trl.lexicon.places import (
    CELLS,
    HALVES,
    UNKNOWN_PLACE,
    WHOLE,
    cell_of,
    edge_of,
    halves_of,
    has_place,
    in_place,
    place_noun,
    place_phrase,
    place_score,
    places_in_words,
    touches,
)
from sage_trl.lexicon.reading import Reading, read_sentence, read_verdict

__all__ = [
    "CELLS",
    "GOOD_PART",
    "HALVES",
    "KNOWN_TYPES",
    "UNKNOWN_PLACE",
    "WHOLE",
    "DefectTerms",
    "Reading",
    "article",
    "cell_of",
    "edge_of",
    "halves_of",
    "has_place",
    "in_place",
    "place_noun",
    "place_phrase",
    "place_score",
    "places_in_words",
    "read_sentence",
    "read_verdict",
    "readable_category",
    "readable_type",
    "same_family",
    "terms_for",
    "touches",
]
