"""What a language model is asked in each of the paper's three stages, and the schemas of its replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage_trl.data.authoring.questions import Asked, Probe
from sage_trl.data.authoring.scenes import Scene
from sage_trl.lexicon import UNKNOWN_PLACE, places_in_words
from sage_trl.llm_client.request import ChatRequest, ImageFile, Message
from sage_trl.records import Defect, Level

VERSION = "1"
CAPTION_TOKENS, TEMPLATE_TOKENS, ANSWER_TOKENS = 600, 1500, 3000
TEMPLATES_PER_KIND = 4
ANSWERS = 4

# Kind of template -> its probe, whether it is answered yes on a match, and its gap.
KINDS: dict[str, tuple[Probe, bool, str | None]] = {
    "defective": ("presence", True, None),
    "good": ("presence", False, None),
    "type": ("type", True, "{words}"),
    "place": ("place", True, "{where}"),
    "cause": ("cause", True, "{words}"),
    "consequence": ("consequence", True, "{words}"),
}
KINDS_OF_LEVEL: dict[Level, tuple[str, ...]] = {
    "standard_comparison": ("defective", "good", "type", "place"),
    "defect_identification": ("defective", "good", "type", "place"),
    "defect_diagnosis": ("defective", "good", "type", "cause", "consequence"),
}
_AIMS: dict[Level, str] = {
    "standard_comparison": "comparing the part with a reference picture of a good one",
    "defect_identification": "finding defects on the part, of what type and where",
    "defect_diagnosis": "whether the part may be used, what caused a defect and what it may lead to",
}
_KINDS_IN_WORDS = {
    "defective": "answered Yes exactly if the part has any defect; no gap but {part}",
    "good": "answered Yes exactly if the part has no defect at all; no gap but {part}",
    "type": "whether a named defect is there; {words} stands for a noun such as 'a scratch'",
    "place": "whether there is a defect in a named place; {where} stands for a phrase such as 'in the upper left'",
    "cause": "whether a cause is likely; {words} stands for a clause such as 'a tool slipped over the surface'",
    "consequence": "whether a consequence may follow; {words} stands for a clause such as 'water gets in'",
}
FACTS_HOLD = "The ground truth below comes from the inspection itself and is right; contradict it nowhere."

CAPTION_SYSTEM = f"""\
You describe pictures of industrial parts for an inspection data set. {FACTS_HOLD}
Describe the part under inspection, then the reference (leave it empty if there is none), then what differs between
them. At most three sentences each, only what can be seen."""

TEMPLATE_SYSTEM = """\
You write templates of yes/no questions for an industrial inspection data set. Gaps are written in braces and are filled
in later: {part} is the name of the part. Vary the words; use no other gap than those that are named."""

ANSWER_SYSTEM = f"""\
You write ranked answers for an industrial inspection data set. {FACTS_HOLD}
For each question, in the given order, repeat the question word for word, state its verdict, and write four different
answers, best first:
1: right verdict, right type and place of defect, and a specific reason from what can be seen
2: right verdict, but vaguer about type or place, or a generic reason
3: right verdict, with a wrong type, place or reason
4: wrong verdict
Every answer begins with Yes or No and is one sentence. All four are of about the same length and tone, so that nothing
but the pictures tells which is best, and none mentions ranks, captions or the ground truth."""

_TEXT = {"type": "string"}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


CAPTION_FIELDS = ("test", "reference", "differences")
CAPTION_SCHEMA = _object(dict.fromkeys(CAPTION_FIELDS, _TEXT))
ANSWER_SCHEMA = _object(
    {
        "questions": _list(
            _object({"question": _TEXT, "verdict": {"type": "string", "enum": ["Yes", "No"]}, "answers": _list(_TEXT)})
        )
    }
)


def caption_request(model: str, scene: Scene, images: Sequence[ImageFile]) -> ChatRequest:
    """Stage 1: captions of the pair."""
    return ChatRequest(
        model=model,
        messages=(Message("system", CAPTION_SYSTEM), Message("user", _about(scene, images), tuple(images))),
        max_tokens=CAPTION_TOKENS,
        schema=CAPTION_SCHEMA,
        schema_name=f"captions_{VERSION}",
        sampling={"temperature": 0},
    )


def template_request(model: str, level: Level) -> ChatRequest:
    """Stage 2: question templates of a level; they serve every category."""
    kinds = KINDS_OF_LEVEL[level]
    wanted = "\n".join(f"- {kind}: {_KINDS_IN_WORDS[kind]}" for kind in kinds)
    text = f"The questions are about {_AIMS[level]}. Write {TEMPLATES_PER_KIND} of each kind:\n{wanted}"
    return ChatRequest(
        model=model,
        messages=(Message("system", TEMPLATE_SYSTEM), Message("user", text)),
        max_tokens=TEMPLATE_TOKENS,
        schema=_object(dict.fromkeys(kinds, _list(_TEXT))),
        schema_name=f"templates_{VERSION}",
        sampling={"temperature": 0},
    )


def answer_request(
    model: str, scene: Scene, images: Sequence[ImageFile], caption: dict[str, str], asked: Sequence[Asked]
) -> ChatRequest:
    """Stage 3: four ranked answers to each of a scene's questions, whose verdicts follow from the ground truth."""
    captions = "\n".join(f"Caption of {name}: {caption[name]}" for name in CAPTION_FIELDS if caption[name])
    questions = "\n".join(
        f"{number}. {question.text} (verdict: {'Yes' if question.verdict else 'No'})"
        for number, question in enumerate(asked, start=1)
    )
    return ChatRequest(
        model=model,
        messages=(
            Message("system", ANSWER_SYSTEM),
            Message("user", f"{_about(scene, images)}\n\n{captions}\n\nQuestions:\n{questions}", tuple(images)),
        ),
        max_tokens=ANSWER_TOKENS,
        schema=ANSWER_SCHEMA,
        schema_name=f"answers_{VERSION}",
        sampling={"temperature": 0},
    )


def _about(scene: Scene, images: Sequence[ImageFile]) -> str:
    shown = "the part" if len(images) == 1 else "the part under inspection, then a good part as the reference"
    return f"Part: {scene.part}\nImages: {shown}.\nGround truth: {_ground_truth(scene)}"


def _ground_truth(scene: Scene) -> str:
    if not scene.defects:
        return "the part has no defect."
    regions: dict[str, list[Defect]] = {}
    for defect in scene.defects:
        regions.setdefault(defect.type, []).append(defect)
    found = [_in_words(kind, own) for kind, own in regions.items()]
    return f"the part has {'these defects' if len(found) > 1 else 'this defect'}: {'; '.join(found)}."


def _in_words(kind: str, regions: Sequence[Defect]) -> str:
    """Type, places and size: "scratch in 2 regions, in the upper left and along the top edge, 3.0% of the part"."""
    several = f" in {len(regions)} regions," if len(regions) > 1 else ""
    shares = [region.share for region in regions if region.share is not None]
    size = f", {sum(shares):.1%} of the part" if len(shares) == len(regions) else ""
    where = places_in_words(region.box for region in regions) or UNKNOWN_PLACE
    return f"{kind}{several} {where}{size}"
