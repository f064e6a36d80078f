"""Readable names for the folder and label names of datasets: "scratch_head" -> "head scratch", "pcb1" -> "board"."""

from __future__ import annotations

import re

from sage_trl.lexicon.defects import KNOWN_TYPES

# Labels that are no nouns, that name a type of the lexicon in another way, or that hold words which say something else
# in an answer: places ("top"), and words that deny ("damage", "defect").
_TYPES = {
    "anomalous": "anomaly",
    "bad": "anomaly",
    "bend and parts mismatch": "bend with mismatched parts",
    "bent": "bend",
    "broken": "break",
    "broken large": "large break",
    "broken small": "small break",
    "broken teeth": "broken tooth",
    "burnt": "burn mark",
    "cable swap": "swapped cable",
    "chip around edge and corner": "chipped corner",
    "chunk of gum missing": "missing chunk of gum",
    "chunk of wax missing": "missing chunk of wax",
    "color": "discolouration",
    "colour": "discolouration",
    "combined": "combination of flaws",
    "contamination": "contaminated spot",
    "corner missing": "missing corner",
    "corner or edge breakage": "chipped corner",
    "cut inner insulation": "inner insulation cut",
    "cut outer insulation": "outer insulation cut",
    "damage": "damaged spot",
    "damaged corner of packaging": "damaged packaging corner",
    "defect": "anomaly",
    "defective": "anomaly",
    "defective painting": "painting flaw",
    "deformed": "deformation",
    "discolor": "discolouration",
    "extra": "extra piece",
    "extra wax in candle": "extra wax",
    "fabric border": "frayed fabric border",
    "fabric interior": "frayed inner fabric",
    "flip": "flipped part",
    "foreign particals on candle": "foreign particle",
    "fryum stuck together": "stuck fryum",
    "glue": "spot of glue",
    "gray stroke": "grey stroke",
    "liquid": "spot of liquid",
    "logical anomalies": "logical anomaly",
    "manipulated front": "manipulated tip",
    "melt": "melted spot",
    "metal contamination": "metal particle",
    "middle breakage": "wide breakage",
    "misplaced": "misplacement",
    "misshape": "deformation",
    "missing": "missing piece",
    "ng": "anomaly",
    "oil": "spot of oil",
    "other": "unusual flaw",
    "parts mismatch": "mismatched part",
    "pill type": "wrong pill type",
    "poke": "poke mark",
    "poke insulation": "insulation puncture",
    "rough": "rough spot",
    "same colour spot": "similar colour spot",
    "scratch head": "head scratch",
    "scratch neck": "neck scratch",
    "scratches": "scratch",
    "split teeth": "split tooth",
    "squeeze": "squeeze mark",
    "squeezed teeth": "squeezed tooth",
    "structural anomalies": "structural anomaly",
    "stuck together": "stuck neighbour",
    "thread": "loose thread",
    "thread side": "worn thread flank",
    "thread top": "worn thread tip",
    "wax melded out of the candle": "wax run",
    "weird candle wick": "odd candle wick",
    "wrong place": "misplacement",
}
_CATEGORIES = {
    "capsules": "set of capsules",
    "chewinggum": "chewing gum",
    "macaroni": "set of macaroni",
    "pcb": "board",
    "tubes": "set of tubes",
}
# Bare words that are read as places.
_PLACE_WORDS = {"top": "upper", "bottom": "lower", "centre": "inner", "center": "inner", "middle": "inner"}
_PLURAL_S = re.compile(r"(?<=[bdfgklmnprtvwy])s$")


def readable_type(label: str) -> str:
    """A noun for a defect's folder or label name."""
    plain = _words(label)
    if label.lower() in KNOWN_TYPES:
        return label.lower()
    if plain in KNOWN_TYPES or plain in _TYPES:
        return _TYPES.get(plain, plain)
    singular = _PLURAL_S.sub("", plain)
    return " ".join(_PLACE_WORDS.get(word, word) for word in singular.split())


def readable_category(category: str) -> str:
    """A noun that can stand after "this"."""
    plain = re.sub(r" ?\d+$", "", _words(category)) or category
    return _CATEGORIES.get(plain, plain)


def _words(name: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[_\-\s]+", " ", apart).split()).lower()
