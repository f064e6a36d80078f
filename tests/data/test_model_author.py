"""Questions and answers by a language model: complete or left out, never filled in; stopped and resumed for free."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sage_trl.data.authoring import Scene
from sage_trl.data.authoring.model_prompts import TEMPLATES_PER_KIND, caption_request
from sage_trl.data.authoring.model_replies import check_answers, parse_answers, parse_captions, parse_templates
from sage_trl.data.authoring.questions import Asked, Template
from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.data.validation import examine_dataset
from sage_trl.lexicon import WHOLE
from sage_trl.llm_client.replies import UnreadableError
from sage_trl.records import Defect
from tests.llm_client.conftest import Served, serve
from tests.tools.conftest import run_tool_file

__all__ = ["run_tool_file", "serve"]
PRICES = ("--price-input", "2.5", "--price-output", "10")
SCRATCH = Defect(type="scratch", box=(0.05, 0.05, 0.25, 0.25))
ASKED = [Asked(Template("type", True, "Is there {words}?"), "scratch", "a scratch", "Is there a scratch?", True)]


def answer_set(verdict: str = "Yes", answers: Sequence[str] = ("Yes, a.", "Yes, b.", "Yes, c.", "No, d.")) -> str:
    one = {"question": "Is there a scratch?", "verdict": verdict, "answers": list(answers)}
    return json.dumps({"questions": [one]})


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("no JSON", "not JSON"),
        ('{"questions": "x"}', "no list"),
        (answer_set("yes"), "no verdict"),
        (answer_set(answers=("Yes, a.", "Yes, b.", "No, d.")), "not 4 different"),
        (answer_set(answers=("Yes, a.", "Yes,  A", "Yes, c.", "No, d.")), "not 4 different"),
        (answer_set(answers=("Yes, a.", "Perhaps.", "Yes, c.", "No, d.")), "neither Yes nor No"),
        (answer_set("No"), "the best answer must state the verdict"),
        (answer_set(answers=("Yes, a.", "Yes, b.", "Yes, c.", "Yes, d.")), "its opposite"),
        (answer_set(answers=("Yes, a.", "No, b.", "Yes, c.", "No, d.")), "wrong verdict ranks above"),
        (answer_set(answers=("Yes, a <image>.", "Yes, b.", "Yes, c.", "No, d.")), "<image>"),
    ],
)
def test_answer_sets_that_contradict_themselves_are_unreadable(reply: str, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        parse_answers(reply)


def test_answer_sets_that_contradict_the_ground_truth_are_unreadable() -> None:
    scene = Scene("s/1", "s", "plate", "train", "a.png", None, (SCRATCH,))
    check_answers(parse_answers(answer_set()), scene, ASKED)
    placed = "Yes, there is a scratch in the {}."
    others = ("Yes, b.", "Yes, c.", "No, d.")
    check_answers(parse_answers(answer_set(answers=(placed.format("upper left"), *others))), scene, ASKED)
    with pytest.raises(UnreadableError, match="'lower right', where no defect is"):
        check_answers(parse_answers(answer_set(answers=(placed.format("lower right"), *others))), scene, ASKED)
    opposite = answer_set("No", ("No, a.", "No, b.", "Yes, c.", "Yes, d."))
    with pytest.raises(UnreadableError, match="contradicts the ground truth"):
        check_answers(parse_answers(opposite), scene, ASKED)
    with pytest.raises(UnreadableError, match="not the 0 questions"):
        check_answers(parse_answers(answer_set()), scene, [])


def test_the_ground_truth_in_words() -> None:
    top = Defect(type="scratch", box=(0.1, 0.0, 0.9, 0.1), share=0.02)
    stain = Defect(type="stain", box=(0.7, 0.7, 0.9, 0.9))
    told = {
        (): "the part has no defect.",
        (SCRATCH,): "this defect: scratch in the upper left.",
        (Defect(type="dent", box=WHOLE),): "this defect: dent in a place that is not known.",
        (SCRATCH.model_copy(update={"share": 0.01}), top): "this defect: scratch in 2 regions, in the upper left and "
        "along the top edge, 3.0% of the part.",
        (
            SCRATCH,
            stain,
            top,
        ): "these defects: scratch in 2 regions, in the upper left and along the top edge; stain in the lower right.",
    }
    for defects, said in told.items():
        scene = Scene("s/1", "s", "plate", "train", "a.png", None, defects)
        text = caption_request("gpt-4o", scene, []).messages[-1].text
        assert text.endswith(said), text


def test_templates_and_captions_are_checked() -> None:
    texts = [f"Is there {{words}} on {{part}} {number}?" for number in range(TEMPLATES_PER_KIND)]
    assert parse_templates(json.dumps({"type": texts})) == {"type": texts}
    for faulty in (texts[1:], [texts[0], *texts[:-1]], [*texts[1:], "Is it {part}?"], [*texts[1:], "See {words}."]):
        with pytest.raises(UnreadableError):
            parse_templates(json.dumps({"type": faulty}))
    assert parse_captions('{"test": " a  b ", "reference": "", "differences": ""}')["test"] == "a b"
    with pytest.raises(UnreadableError, match="test is no text"):
        parse_captions('{"test": " ", "reference": "", "differences": ""}')


@pytest.fixture
def build(
    tmp_path: Path, serve: Callable[..., Served], run_tool_file: Callable[..., int]
) -> Callable[[Served, str], int]:
    """Builds twelve synthetic groups at `tmp_path / "d"` with a fake server; returns the exit code."""

    def run(server: Served, *options: str) -> int:
        fixed = ("--source", "synthetic", "--groups", "train=12", "validation=0", "test=0", "unseen=0", "--quiet")
        asked = ("--author", "openai", "--base-url", server.url, "--timeout", "1", *PRICES, *options)
        return run_tool_file("build_dataset.py", *fixed, "--output", tmp_path / "d", *asked)

    return run


def requests(server: Served) -> int:
    return sum(server.stats()["received"].values())


def check_whole(dataset: AdPlDirectory, groups: int) -> None:
    assert len(dataset.inspections) == groups
    assert not [finding for finding in examine_dataset(dataset.root).findings if finding.severity == "error"]
    for row in dataset.inspections:
        assert len(row.questions) == 5 and all(len(question.answers) == 4 for question in row.questions)
        assert all(question.answers[0].startswith("Yes" if question.verdict else "No") for question in row.questions)


def test_a_dataset_by_a_model_and_again_for_free(tmp_path: Path, serve: Callable[..., Served], build) -> None:
    server = serve("--latency", "0.01")
    assert build(server, "--dry-run") == 0
    assert requests(server) == 0 and list(tmp_path.iterdir()) == []
    assert build(server) == 2, "nobody is there to be asked"
    assert build(server, "--yes") == 0
    check_whole(read_ad_pl(tmp_path / "d"), 12)
    sent, rows = requests(server), (tmp_path / "d" / "ad_pl.jsonl").read_bytes()
    assert sent == 12 + 3 + 12
    assert (tmp_path / "d.authoring.sqlite").stat().st_mode & 0o777 == 0o600
    assert build(server, "--force", "--yes") == 0
    assert requests(server) == sent and (tmp_path / "d" / "ad_pl.jsonl").read_bytes() == rows


def test_a_cap_stops_it_and_a_higher_one_goes_on(tmp_path: Path, serve: Callable[..., Served], build) -> None:
    server = serve()
    assert build(server, "--yes", "--max-cost", "0.15") == 4
    sent = requests(server)
    assert 0 < sent < 27 and not (tmp_path / "d").exists()
    assert server.stats()["nano_usd"] <= 150_000_000
    assert build(server, "--yes", "--max-cost", "9") == 0
    assert requests(server) == 27, "nothing was asked twice"


def test_faulty_replies_are_asked_again_and_never_used(tmp_path: Path, serve: Callable[..., Served], build) -> None:
    server = serve("--faults", "0.3", "--seed", "3")
    codes = [build(server, "--yes", "--force", "--retry-quarantined")]
    while codes[-1] == 3 and len(codes) < 10:
        codes.append(build(server, "--yes", "--force", "--retry-quarantined"))
    assert codes[-1] == 0
    assert {"score 0", "score 6", "score 4.5", "wrong schema"} & set(server.stats()["faults"])
    check_whole(read_ad_pl(tmp_path / "d"), 12)


def test_what_stays_wrong_is_left_out(tmp_path: Path, serve: Callable[..., Served], build) -> None:
    stubborn = serve("--says", "contradict")
    assert build(stubborn, "--yes") == 3
    assert not (tmp_path / "d").exists(), "every group contradicts the ground truth"
    assert requests(stubborn) == 12 + 3 + 12 * 3
    assert build(serve("--says", "contradict defective"), "--yes") == 3
    dataset = read_ad_pl(tmp_path / "d")
    good = len(dataset.inspections)
    check_whole(dataset, good)
    assert 0 < good < 12 and not any(row.defects for row in dataset.inspections)
    shown = {name for row in dataset.inspections for name in (row.test_image, row.reference_image)}
    files = {path.relative_to(dataset.root).as_posix() for path in dataset.root.rglob("*.png")}
    assert files == shown, "images of groups that were left out are left out too"
    shutil.rmtree(tmp_path / "d")
    assert build(serve("--says", "bad templates"), "--yes") == 3
    assert not (tmp_path / "d").exists()
