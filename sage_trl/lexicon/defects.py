"""Words for each type of defect: its nouns, what it looks like, what causes it and what it leads to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class DefectTerms:
    """The words of one defect type.

    Attributes:
        name: the type as ground truth writes it.
        family: types of one family are easily taken for one another.
        nouns: singular nouns without article, the usual one first.
        evidence: clauses on what is seen.
        causes: clauses on what may have caused it, in the past tense.
        consequences: clauses on what may follow, in the present tense.
        clues: phrases by which a reason is read as one of this type. Every clause above holds at least one, and no
            clause of another type holds any.
    """

    name: str
    family: str
    nouns: tuple[str, ...]
    evidence: tuple[str, ...]
    causes: tuple[str, ...]
    consequences: tuple[str, ...]
    clues: tuple[str, ...]


_TERMS = (
    DefectTerms(
        name="scratch",
        family="surface",
        nouns=("scratch", "scrape"),
        evidence=("a thin line runs over the surface", "a narrow line cuts the surface"),
        causes=("a hard edge rubbed over it", "it rubbed against a sharp tool"),
        consequences=("a crack starts there", "it cracks under load"),
        clues=("thin line", "narrow line", "rubbed", "crack", "cracks"),
    ),
    DefectTerms(
        name="stain",
        family="surface",
        nouns=("stain", "smudge"),
        evidence=("a dull patch covers the surface", "a blurred patch lies on the surface"),
        causes=("some fluid dried on it", "oil dripped on it"),
        consequences=("paint will not stick to it", "dirt spreads from it"),
        clues=("patch", "fluid", "oil", "paint", "dirt"),
    ),
    DefectTerms(
        name="missing feature",
        family="layout",
        nouns=("missing feature", "absent feature"),
        evidence=("one detail of the reference is gone", "a detail of the reference was left out"),
        causes=("a step of the work was skipped", "the machine skipped a step"),
        consequences=("it cannot be mounted", "nothing can be fixed to it"),
        clues=("gone", "left out", "skipped", "mounted", "fixed to"),
    ),
    DefectTerms(
        name="deformation",
        family="shape",
        nouns=("deformation", "distortion"),
        evidence=("the outline is bent", "the outline bulges or sinks"),
        causes=("strong pressure acted on it", "something heavy pressed on it"),
        consequences=("it jams in its housing", "it will not fit its housing"),
        clues=("bent", "bulges", "pressure", "pressed", "housing"),
    ),
    DefectTerms(
        name="misplacement",
        family="layout",
        nouns=("misplacement", "misplaced feature"),
        evidence=("one detail sits beside its true position", "a detail has moved from its true position"),
        causes=("the holder was not aligned", "it slipped in a loose holder"),
        consequences=("it does not line up with other parts", "other parts do not line up"),
        clues=("beside its true", "moved from its true", "aligned", "slipped", "line up"),
    ),
    DefectTerms(
        name="open",
        family="less copper",
        nouns=("open circuit", "broken trace"),
        evidence=("a trace is interrupted", "a gap parts a trace"),
        causes=("too much metal was etched away", "the mask tore over the trace"),
        consequences=("no signal gets through", "the signal is lost"),
        clues=("interrupted", "gap parts", "etched away", "tore", "signal"),
    ),
    DefectTerms(
        name="short",
        family="more copper",
        nouns=("short circuit", "copper bridge"),
        evidence=("two traces touch", "metal joins two traces"),
        causes=("the metal between the traces was not removed", "the etching stopped too early"),
        consequences=("current takes a wrong path", "the fuse blows"),
        clues=("traces touch", "joins two", "not removed", "stopped too early", "wrong path", "fuse"),
    ),
    DefectTerms(
        name="mousebite",
        family="less copper",
        nouns=("mouse bite", "nick"),
        evidence=("a bay is eaten into the edge", "the edge has a small bay"),
        causes=("acid crept under the mask", "acid ate at the edge"),
        consequences=("the trace overheats at its thin part", "the thin part burns out"),
        clues=("bay", "acid", "overheats", "burns out"),
    ),
    DefectTerms(
        name="spur",
        family="more copper",
        nouns=("spur", "copper thorn"),
        evidence=("a tip sticks out of the edge", "the edge grows a small tip"),
        causes=("dust lay on the mask", "dust shaded the film"),
        consequences=("a spark jumps to the next trace", "sparks may jump over"),
        clues=("tip", "dust", "spark", "sparks"),
    ),
    DefectTerms(
        name="copper",
        family="more copper",
        nouns=("spurious copper", "copper island"),
        evidence=("a lone piece of metal lies between the traces", "a lone metal spot was added"),
        causes=("metal splashed on the board", "a splash of resist stayed on"),
        consequences=("it picks up noise", "noise couples into the lines"),
        clues=("lone", "splashed", "splash", "noise"),
    ),
    DefectTerms(
        name="pin-hole",
        family="less copper",
        nouns=("pin hole", "tiny hole"),
        evidence=("a small dot of metal is absent inside", "a small dot inside is bare"),
        causes=("a bubble formed in the resist", "a bubble burst in the coat"),
        consequences=("rust begins inside", "the joint grows weak by rust"),
        clues=("small dot", "bubble", "rust"),
    ),
)

GOOD_PART = DefectTerms(
    name="normal",
    family="none",
    nouns=("defect", "fault"),
    evidence=(
        "every detail agrees with the reference",
        "surface and outline agree with the reference",
        "only the light differs from the reference",
    ),
    causes=("it was made as planned", "the work went as planned"),
    consequences=("it will do its job", "it can do its job well"),
    clues=("agrees with the reference", "agree with the reference", "only the light", "as planned", "do its job"),
)

_BY_NAME = {terms.name: terms for terms in _TERMS}
KNOWN_TYPES = tuple(_BY_NAME)


@cache
def terms_for(name: str) -> DefectTerms:
    """The words for a defect type; a type that is not in the lexicon gets its own name and general clauses."""
    known = _BY_NAME.get(name)
    if known is not None:
        return known
    noun = name.replace("_", " ").replace("-", " ").strip().lower()
    return DefectTerms(
        name=name,
        family=f"unknown: {name}",
        nouns=(noun,),
        evidence=(f"the {noun} does not belong there", f"the {noun} is new against the reference"),
        causes=(f"the {noun} arose in handling", f"the {noun} arose in the making"),
        consequences=(f"the {noun} makes it weak", f"the {noun} makes it fail"),
        clues=(f"{noun} does not belong", f"{noun} is new", f"{noun} arose", f"{noun} makes it"),
    )


def same_family(one: str, other: str) -> bool:
    """Whether two types are easily taken for one another."""
    return terms_for(one).family == terms_for(other).family


_MASS_NOUNS = {"copper", "corrosion", "dirt", "dust", "fuzz", "pitting", "rust", "wax"}


def article(noun: str) -> str:
    """The noun with its indefinite article; a mass noun such as "spurious copper" takes none."""
    if noun.rsplit(maxsplit=1)[-1] in _MASS_NOUNS:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
