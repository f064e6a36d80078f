"""The harness with scripted models: settings, grading, resuming."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sage_trl.data.dataset import read_ad_pl, write_ad_pl
from sage_trl.data.fact_sets import read_facts
from sage_trl.errors import DataError
from sage_trl.evaluation.harness import EvaluationRun, ModelUnderTest, evaluate, measure
from sage_trl.evaluation.metrics import Metrics
from sage_trl.evaluation.predictions import Setting
from sage_trl.evaluation.processes import Processes
from sage_trl.judge.scorer import CriterionScores
from sage_trl.models.replies import Reply
from sage_trl.records import Inspection, Question

ONE_SHOT_QUESTIONS = 8


class Scripted:
    """Answers by a function of the row and remembers the rows it saw."""

    def __init__(self, reply: Callable[[dict[str, Any]], str] = lambda row: "Yes, a scratch.") -> None:
        self.reply = reply
        self.rows: list[dict[str, Any]] = []
        self.batch_sizes: list[int] = []

    def __call__(self, rows: list[dict[str, Any]], /) -> list[Reply]:
        self.rows += rows
        self.batch_sizes.append(len(rows))
        return [Reply(self.reply(row)) for row in rows]


class PlaceJudge:
    """Scores by whether a reply names a place."""

    name = "place"

    def score(self, inspection: Inspection, question: Question, answer: str) -> CriterionScores:
        return CriterionScores(5.0, 5.0 if "top left" in answer else 2.0, 2.0)


def model(generator: Any, name: str = "scripted", **identity: Any) -> ModelUnderTest:
    return ModelUnderTest(name, generator, {"fingerprint": "1", **identity})


def run_of(ad_pl: Path, tmp_path: Path, **changes: Any) -> EvaluationRun:
    facts = read_facts(ad_pl / "facts.jsonl")
    return replace(
        EvaluationRun(directory=read_ad_pl(ad_pl), output=tmp_path / "out", facts=facts, batch_size=3, quiet=True),
        **changes,
    )


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "out" / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_as_the_model_sees_them(ad_pl: Path, tmp_path: Path) -> None:
    generator = Scripted()

    evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path))

    # Groups of two stay whole in batches of at most three.
    assert generator.batch_sizes == [2, 2, 2, 2]
    by_group = {row["group_id"]: row for row in generator.rows}
    assert [isinstance(row["images"][0], Image.Image) for row in generator.rows] == [True] * ONE_SHOT_QUESTIONS
    assert by_group["g1"]["images"][0].getpixel((0, 0)) == (40, 10, 10)
    assert by_group["g1"]["reference_image"].getpixel((0, 0)) == (10, 40, 10)
    assert by_group["g1"]["facts"] == ["Parts of kind 1 get scratched.", "They get stained."]
    assert by_group["g3"]["reference_image"] is None
    assert by_group["g1"]["prompt"][0]["content"].startswith(by_group["g1"]["question"])


def test_a_group_larger_than_a_batch_is_cut(ad_pl: Path, tmp_path: Path) -> None:
    generator = Scripted()

    evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path, batch_size=1))

    assert generator.batch_sizes == [1] * ONE_SHOT_QUESTIONS


def test_zero_shot_hides_the_reference(ad_pl: Path, tmp_path: Path) -> None:
    generator = Scripted()

    evaluate(model(generator), "zero_shot", ["test"], run_of(ad_pl, tmp_path))

    assert {row["reference_image"] for row in generator.rows} == {None}


def test_grades_and_predictions_file(ad_pl: Path, tmp_path: Path) -> None:
    replies = {"Is the part scratched?": "Yes, top left.", "Does the part look as good as it should?": "Hard to say."}
    generator = Scripted(lambda row: replies[row["question"]])

    metrics = evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path, judge=PlaceJudge()))["test"]

    assert (metrics.accuracy, metrics.acc_g, metrics.unreadable) == (0.5, 0.0, 4)
    assert metrics.accuracy_by_level["defect_diagnosis"] == 0.5
    assert metrics.mle_rule is not None
    assert metrics.mle_rule.location == (5.0 + 2.0) / 2
    written = lines(tmp_path)
    assert len(written) == ONE_SHOT_QUESTIONS
    names = "key model setting group_id question_id level question prediction predicted_verdict verdict correct seconds"
    assert set(written[0]) == {*names.split(), "split", "control", "yes_probability", "choice", "predicted_choice"}
    assert {line["predicted_verdict"] for line in written} == {True, None}


def test_each_split_has_its_own_metrics(ad_pl: Path, tmp_path: Path) -> None:
    metrics = evaluate(model(Scripted()), "one_shot", ["test", "unseen"], run_of(ad_pl, tmp_path))

    assert {split: entry.groups for split, entry in metrics.items()} == {"test": 4, "unseen": 1}


def test_a_second_run_generates_nothing_and_measures_the_same(ad_pl: Path, tmp_path: Path) -> None:
    first = evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path))
    generator = Scripted()

    second = evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path))

    assert generator.rows == []
    assert second == first
    assert len(lines(tmp_path)) == ONE_SHOT_QUESTIONS


def test_a_killed_run_goes_on_where_it_stopped(ad_pl: Path, tmp_path: Path) -> None:
    killed = Scripted()

    def stop_in_the_second_batch(row: dict[str, Any]) -> str:
        if len(killed.batch_sizes) == 2:
            raise KeyboardInterrupt
        return "Yes."

    killed.reply = stop_in_the_second_batch
    with pytest.raises(KeyboardInterrupt):
        evaluate(model(killed), "one_shot", ["test"], run_of(ad_pl, tmp_path))
    path = tmp_path / "out" / "predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"key": "torn', encoding="utf-8")
    generator = Scripted()

    evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path))

    assert generator.batch_sizes == [2, 2, 2]
    assert len({line["key"] for line in lines(tmp_path)}) == len(lines(tmp_path)) == ONE_SHOT_QUESTIONS


@pytest.mark.parametrize("change", ["model", "fingerprint", "setting", "control", "facts", "image"])
def test_changed_content_is_generated_again(ad_pl: Path, tmp_path: Path, change: str) -> None:
    evaluate(model(Scripted()), "one_shot", ["unseen"], run_of(ad_pl, tmp_path))
    generator = Scripted()
    changed = model(generator)
    run = run_of(ad_pl, tmp_path)
    if change == "model":
        changed = model(generator, name="other")
    if change == "fingerprint":
        changed = model(generator, fingerprint="2")
    if change == "control":
        run = replace(run, control="blank_image")
    if change == "facts":
        run = replace(run, facts=None)
    if change == "image":
        Image.new("RGB", (16, 16), (255, 255, 255)).save(ad_pl / "images/4_reference.png")

    evaluate(changed, "zero_shot" if change == "setting" else "one_shot", ["unseen"], run)

    assert len(generator.rows) == 2


def test_limit_counts_groups(ad_pl: Path, tmp_path: Path) -> None:
    metrics: Metrics = evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path, limit=2))["test"]

    assert (metrics.groups, metrics.questions, metrics.limit) == (2, 4, 2)
    enough = evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path, limit=4))["test"]
    assert (enough.groups, enough.limit) == (4, None)


def test_an_unknown_split_names_those_that_exist(ad_pl: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'validation'\n.*test, unseen"):
        evaluate(model(Scripted()), "one_shot", ["validation"], run_of(ad_pl, tmp_path))


def test_missing_facts_stop_before_any_generation(ad_pl: Path, tmp_path: Path) -> None:
    generator = Scripted()

    with pytest.raises(DataError, match=r"0_test.png: no facts"):
        evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path, facts={}))

    assert generator.rows == []


def test_a_missing_image_stops_before_any_generation(ad_pl: Path, tmp_path: Path) -> None:
    run = run_of(ad_pl, tmp_path)
    (ad_pl / "images/2_reference.png").unlink()
    generator = Scripted()

    with pytest.raises(DataError, match=r"2_reference.png: no such image"):
        evaluate(model(generator), "one_shot", ["test"], run)

    assert generator.rows == []


def test_one_shot_needs_a_reference_somewhere(ad_pl: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (ad_pl / "ad_pl.jsonl").read_text(encoding="utf-8").splitlines()]
    bare = [Inspection.model_validate(row | {"reference_image": None}) for row in rows]

    with pytest.raises(DataError, match="no group has a reference image"):
        evaluate(
            model(Scripted()),
            "one_shot",
            ["test"],
            run_of(ad_pl, tmp_path, directory=replace(read_ad_pl(ad_pl), inspections=tuple(bare))),
        )


def test_known_replies_are_graded_by_the_verdict_of_today(ad_pl: Path, tmp_path: Path) -> None:
    before = evaluate(model(Scripted(lambda _: "Yes.")), "one_shot", ["test"], run_of(ad_pl, tmp_path))["test"]
    assert before.accuracy is not None and before.accuracy < 1
    directory = read_ad_pl(ad_pl)
    corrected = [
        row.model_copy(update={"questions": tuple(q.model_copy(update={"verdict": True}) for q in row.questions)})
        for row in directory.inspections
    ]
    write_ad_pl(ad_pl, corrected, directory.info)
    generator = Scripted(lambda _: "No.")

    after = evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path))["test"]

    assert generator.rows == []
    assert after.accuracy == 1.0


def shown(tmp_path: Path) -> dict[tuple[str, str], tuple[str, bool]]:
    """The last line about each question, which is what the report shows: reply and grade."""
    return {(row["group_id"], row["question_id"]): (row["prediction"], row["correct"]) for row in lines(tmp_path)}


def test_the_last_lines_are_those_of_the_last_run(ad_pl: Path, tmp_path: Path) -> None:
    """A model trained anew and put back, as `--max-new-tokens` or `--facts` changed and changed back."""

    def run(version: str, reply: str, **changes: Any) -> int:
        generator = Scripted(lambda _: reply)
        evaluate(model(generator, fingerprint=version), "one_shot", ["test"], run_of(ad_pl, tmp_path, **changes))
        return len(generator.rows)

    assert run("1", "Yes, first.") == run("2", "No, second.") == ONE_SHOT_QUESTIONS
    assert run("1", "Never asked.") == 0
    assert {reply for reply, _ in shown(tmp_path).values()} == {"Yes, first."}
    assert run("1", "Never asked.") == 0
    assert len(lines(tmp_path)) == 3 * ONE_SHOT_QUESTIONS
    assert run("2", "Never asked.", limit=1) == 0
    assert {place for place, (reply, _) in shown(tmp_path).items() if reply == "No, second."} == {
        ("g0", "q1"),
        ("g0", "q2"),
    }


def test_a_corrected_verdict_reaches_the_file(ad_pl: Path, tmp_path: Path) -> None:
    evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path))
    directory = read_ad_pl(ad_pl)
    before = evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path))["test"]
    [first, *others] = directory.inspections
    corrected = first.model_copy(
        update={"questions": tuple(q.model_copy(update={"verdict": not q.verdict}) for q in first.questions)}
    )
    write_ad_pl(ad_pl, [corrected, *others], directory.info)

    metrics = evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path))["test"]

    assert len(lines(tmp_path)) == ONE_SHOT_QUESTIONS + 2
    assert shown(tmp_path)["g0", "q1"] == ("Yes, a scratch.", False)
    assert shown(tmp_path)["g0", "q2"] == ("Yes, a scratch.", True)
    assert before.replies_sha256 != metrics.replies_sha256
    assert metrics.accuracy == sum(right for _, right in shown(tmp_path).values()) / ONE_SHOT_QUESTIONS


def test_similarity_to_the_best_answers_and_what_was_asked(ad_pl: Path, tmp_path: Path) -> None:
    def encode(sentences: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] if sentence.startswith("Yes") else [0.0, 1.0] for sentence in sentences]

    metrics = evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path, encoder=encode))["test"]

    # Every reply is yes, and the best answer of one of the two questions of each group.
    assert metrics.sbert == 0.5
    assert (metrics.missing, metrics.units, metrics.group_sizes) == (0, 4, {"2": 4})


def test_groups_on_one_image_are_one_physical_unit(ad_pl: Path, tmp_path: Path) -> None:
    directory = read_ad_pl(ad_pl)
    same = [row.model_copy(update={"test_image": "images/0_test.png"}) for row in directory.inspections]
    run = run_of(ad_pl, tmp_path, directory=replace(directory, inspections=tuple(same)))

    metrics = evaluate(model(Scripted()), "one_shot", ["test"], run)["test"]

    assert (metrics.groups, metrics.units) == (4, 1)


def told(row: dict[str, Any]) -> str:
    """A reply that depends on all that was said before."""
    said = [message["content"] for message in row["prompt"]]
    return f"Yes, after {len(said)} of {len(' '.join(said))} from {row['group_id']}."


def test_a_conversation_goes_on_from_the_models_own_replies(ad_pl: Path, tmp_path: Path) -> None:
    generator = Scripted(told)

    measured = measure(model(generator), "one_shot_conversation", ["test"], run_of(ad_pl, tmp_path))["test"]

    # Three conversations at a time, each question of theirs in its turn.
    assert generator.batch_sizes == [3, 3, 1, 1]
    [first, second] = [row for row in generator.rows if row["group_id"] == "g1"]
    assert [message["role"] for message in second["prompt"]] == ["user", "assistant", "user"]
    assert second["prompt"][0] == first["prompt"][0]
    assert second["prompt"][1]["content"] == told(first)
    assert second["prompt"][2]["content"].startswith("Does the part look as good as it should?")
    assert [p.prediction for p in measured.predictions if p.group_id == "g1"] == [told(first), told(second)]
    assert {line["setting"] for line in lines(tmp_path)} == {"one_shot_conversation"}
    # Single questions are asked anew, but for nothing that was said before.
    alone = Scripted(told)
    evaluate(model(alone), "one_shot", ["test"], run_of(ad_pl, tmp_path))
    assert {len(row["prompt"]) for row in alone.rows} == {1}


@pytest.mark.parametrize("kept", range(ONE_SHOT_QUESTIONS))
def test_a_conversation_killed_anywhere_ends_the_same(ad_pl: Path, tmp_path: Path, kept: int) -> None:
    whole = evaluate(model(Scripted(told)), "one_shot_conversation", ["test"], run_of(ad_pl, tmp_path))
    expected = lines(tmp_path)
    path = tmp_path / "out" / "predictions.jsonl"
    text = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(text[:kept]) + text[kept][:40], encoding="utf-8")
    generator = Scripted(told)

    again = evaluate(model(generator), "one_shot_conversation", ["test"], run_of(ad_pl, tmp_path))

    assert again == whole
    assert [line["key"] for line in lines(tmp_path)] == [line["key"] for line in expected]
    # The turn that the kill tore is generated whole, so that every batch is one of an unbroken run.
    turns = [3, 3, 1, 1]
    done = sum(kept >= end for end in (3, 6, 7))
    assert generator.batch_sizes == turns[done:]


@pytest.mark.parametrize("setting", ["one_shot", "one_shot_conversation"])
def test_two_processes_share_the_work(ad_pl: Path, tmp_path: Path, setting: Setting) -> None:
    alone = evaluate(model(Scripted(told)), setting, ["test"], run_of(ad_pl, tmp_path, output=tmp_path / "alone"))
    generators = [Scripted(told), Scripted(told)]
    barrier = threading.Barrier(2)

    def process(index: int) -> dict[str, Metrics]:
        processes = Processes(index, 2, torch.device("cpu"), lambda: barrier.wait(timeout=60) and None)
        run = run_of(ad_pl, tmp_path, processes=processes)
        return evaluate(model(generators[index]), setting, ["test"], run)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(process, range(2))

    assert first == alone
    assert second == {}
    assert all(generator.rows for generator in generators)
    assert sum(len(generator.rows) for generator in generators) == ONE_SHOT_QUESTIONS
    assert len({line["key"] for line in lines(tmp_path)}) == len(lines(tmp_path)) == ONE_SHOT_QUESTIONS
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.jsonl"]


def test_what_killed_processes_left_is_taken_in(ad_pl: Path, tmp_path: Path) -> None:
    evaluate(model(Scripted()), "one_shot", ["test"], run_of(ad_pl, tmp_path))
    output = tmp_path / "out"
    text = (output / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (output / "predictions.jsonl").write_text("".join(text[:2]), encoding="utf-8")
    # Also one that the first process had taken in when it was killed.
    (output / "predictions.process-1.jsonl").write_text("".join(text[1:4]) + text[4][:30], encoding="utf-8")
    generator = Scripted()

    evaluate(model(generator), "one_shot", ["test"], run_of(ad_pl, tmp_path))

    assert generator.batch_sizes == [2, 2]
    assert len({line["key"] for line in lines(tmp_path)}) == len(lines(tmp_path)) == ONE_SHOT_QUESTIONS
    assert [path.name for path in output.iterdir()] == ["predictions.jsonl"]


def test_groups_on_one_board_are_one_physical_unit(ad_pl: Path, tmp_path: Path) -> None:
    directory = read_ad_pl(ad_pl)
    boards = {"g0": "board1", "g1": "board1", "g2": "board2"}
    shown = [row.model_copy(update={"unit": boards.get(row.id)}) for row in directory.inspections]
    run = run_of(ad_pl, tmp_path, directory=replace(directory, inspections=tuple(shown)))

    metrics = evaluate(model(Scripted()), "one_shot", ["test"], run)["test"]

    # Two boards, and the test image of g3, of which nothing is known.
    assert (metrics.groups, metrics.units) == (4, 3)


def test_the_yes_probability_is_kept(ad_pl: Path, tmp_path: Path) -> None:
    class Sure(Scripted):
        def __call__(self, rows: list[dict[str, Any]], /) -> list[Reply]:
            return [reply._replace(yes_probability=0.75) for reply in super().__call__(rows)]

    for _ in range(2):
        [measured] = measure(model(Sure()), "one_shot", ["test"], run_of(ad_pl, tmp_path)).values()

        assert {row.yes_probability for row in measured.predictions} == {0.75}
    assert {line["yes_probability"] for line in lines(tmp_path)} == {0.75}
