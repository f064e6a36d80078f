"""Running a plan: the order of its steps, what is shared, and going on after a stop; the tools only pretend."""

from __future__ import annotations

import pytest

from sage_trl.errors import DataError
from sage_trl.storage import read_json, read_json_lines, write_json

ALL_STEPS = [
    *("train base", "merge base-plain", "train sfe", "train dpo"),
    *("evaluate baseline", "evaluate hard", "evaluate sfe", "evaluate dpo"),
]
TUNED = {
    "stages": {
        "sfe": {"recipe": "sfe.yaml"},
        "dpo": {"recipe": "edpo.yaml", "from": "sfe", "tune": {"beta": [0.1, 0.3]}},
    },
    "arms": {"sfe": {"stage": "sfe"}, "dpo": {"stage": "dpo"}},
}


def test_every_step_once_and_shared_stages_once(work, option):
    plan = work.write_plan()

    assert work.ablation(plan).run() == 0
    assert work.ablation(plan).run() == 0

    assert work.names() == ALL_STEPS
    base, plain, sfe, dpo, baseline, hard, *_ = work.calls()
    models = work.output / "seed-0" / "models"
    assert "--model" not in base
    assert plain[1:] == [str(models / "base"), str(models / "base-plain"), "--plain"]
    assert option(sfe, "--model") == str(models / "base-plain")
    assert option(dpo, "--model") == str(models / "sfe")
    assert (option(dpo, "--eta"), option(dpo, "--scores")) == ("0.0", str(work.dataset / "scores.jsonl"))
    assert "--scores" not in sfe
    assert option(baseline, "--model") == option(hard, "--model") == str(models / "base-plain")
    assert hard[-1] == "--facts-as-text"
    assert "--facts-as-text" not in baseline


def test_more_seeds_add_to_what_is_there(work, option):
    plan = work.write_plan()
    work.ablation(plan).run()

    assert work.ablation(plan, seeds=(0, 5)).run() == 0

    assert work.names() == ALL_STEPS * 2
    assert {option(call, "--seed") for call in work.calls()[8:] if call[0] == "train"} == {"5"}
    assert read_json(work.output / "table.json")["seeds"] == [0, 5]


@pytest.mark.parametrize("stopped", range(len(ALL_STEPS)))
def test_a_run_stopped_at_any_step_goes_on_there(work, stopped):
    plan = work.write_plan()
    work.let_fail({ALL_STEPS[stopped]: 137})
    assert work.ablation(plan).run() == 137
    assert not (work.output / "table.json").exists()
    work.let_fail({})

    assert work.ablation(plan).run() == 0

    assert work.names() == [*ALL_STEPS[: stopped + 1], *ALL_STEPS[stopped:]]
    again = work.calls()[stopped + 1]
    assert ("--resume" in again) == (again[0] == "train")
    assert (work.output / "table.json").is_file()


def test_a_given_model_takes_the_place_of_a_training(work, option):
    plan = work.write_plan()

    assert work.ablation(plan, trained=["base=OpenGVLab/InternVL3-1B-hf"]).run() == 0

    assert work.names() == [step for step in ALL_STEPS if "base" not in step or "baseline" in step]
    assert option(work.calls()[0], "--model") == "OpenGVLab/InternVL3-1B-hf"
    assert option(work.calls()[2], "--model") == "OpenGVLab/InternVL3-1B-hf"


def test_values_from_the_command_line(work, option):
    work.ablation(work.write_plan(), values=["max_steps=7", "sfe.max_steps=9", "base.tiny={text_layers: 1}"]).run()

    trainings = [call for call in work.calls() if call[0] == "train"]
    assert [option(call, "--max_steps") for call in trainings] == ["7", "9", "7"]
    assert option(trainings[0], "--tiny") == "{text_layers: 1}"


def test_a_changed_training_is_an_error_and_not_done_over_the_old_one(work):
    plan = work.write_plan()
    work.ablation(plan).run()

    with pytest.raises(DataError, match=r"models/sfe was made by another command(.|\n)*remedy"):
        work.ablation(plan, values=["sfe.max_steps=9"]).run()

    assert work.names() == ALL_STEPS


def test_other_facts_are_another_training(work):
    plan = work.write_plan()
    work.ablation(plan).run()
    facts = work.dataset / "facts.jsonl"
    facts.write_text(facts.read_text().replace("stained", "burnt"))

    with pytest.raises(DataError, match="another command, recipe or data"):
        work.ablation(plan).run()


def test_candidates_are_tried_at_the_first_seed_and_the_best_is_measured(work, option):
    write_json(work.dataset / "dataset.json", _with_validation(read_json(work.dataset / "dataset.json")))
    work.say_accuracies({"seed-0/dpo-beta=0.1": 0.6, "seed-0/dpo-beta=0.3": 0.7})

    assert work.ablation(work.write_plan(**TUNED), seeds=(0, 1)).run() == 0

    assert work.names() == [
        *("train sfe", "train dpo-beta=0.1", "train dpo-beta=0.3", "evaluate dpo-beta=0.1", "evaluate dpo-beta=0.3"),
        *("evaluate sfe", "evaluate dpo"),
        *("train sfe", "train dpo-beta=0.3", "evaluate sfe", "evaluate dpo"),
    ]
    validated, measured = work.calls()[3], work.calls()[6]
    assert (option(validated, "--split"), option(validated, "--setting")) == ("validation", "one_shot")
    assert option(measured, "--split") == "test"
    assert option(measured, "--model").endswith("dpo-beta=0.3")
    [row] = [row for row in read_json(work.output / "table.json")["rows"][:2] if row["arm"] == "dpo"]
    assert row["chosen"] == {"beta": 0.3}
    assert [(one["values"]["beta"], one["accuracy"]) for one in row["candidates"]] == [(0.1, 0.6), (0.3, 0.7)]


def test_equally_good_candidates_give_the_first(work):
    write_json(work.dataset / "dataset.json", _with_validation(read_json(work.dataset / "dataset.json")))

    work.ablation(work.write_plan(**TUNED)).run()

    assert read_json(work.output / "table.json")["rows"][1]["chosen"] == {"beta": 0.1}


def test_facts_of_a_sweep_are_the_first_ones_in_training_and_evaluation(work, option):
    stages = {"sfe": {"recipe": "sfe.yaml", "grid": {"num_facts": [1, 2], "num_selected_patches": [3]}}}

    assert work.ablation(work.write_plan(stages=stages, arms={"sfe": {"stage": "sfe"}})).run() == 0

    name = "sfe-num_facts=1-num_selected_patches=3"
    assert work.names()[0] == f"train {name}"
    train, evaluate = work.calls()[0], work.calls()[2]
    assert option(train, "--facts_file") == option(evaluate, "--facts") == str(work.output / "facts/first-1.jsonl")
    assert "--num_facts" not in train
    assert option(train, "--num_selected_patches") == "3"
    rows = [row for _, row in read_json_lines(work.output / "facts" / "first-1.jsonl")]
    assert rows[2]["facts"] == ["Parts of kind 2 get scratched."]
    assert read_json(work.output / "table.json")["rows"][0]["grid"] == {"num_facts": 1, "num_selected_patches": 3}


def test_more_facts_than_there_are(work):
    stages = {"sfe": {"recipe": "sfe.yaml", "override": {"num_facts": 3}}}

    with pytest.raises(DataError, match=r"no image has 3 facts, the most are 2(.|\n)*generate_facts"):
        work.ablation(work.write_plan(stages=stages, arms={"sfe": {"stage": "sfe"}})).run()


def test_a_dry_run_shows_every_command_and_runs_none(work, capsys):
    plan = work.write_plan()
    work.ablation(plan, quiet=False, seeds=(0, 1)).show()

    assert work.calls() == []
    assert not work.output.exists()
    text = capsys.readouterr().out
    assert text.count(": new\n$ ") == 2 * len(ALL_STEPS)
    assert "16 steps" in text

    work.ablation(plan).run()
    capsys.readouterr()
    work.ablation(plan, quiet=False, seeds=(0, 1)).show()
    text = capsys.readouterr().out
    assert (text.count(": done\n$ "), text.count(": new\n$ ")) == (len(ALL_STEPS), len(ALL_STEPS))


@pytest.mark.parametrize(
    ("missing", "message"),
    [("facts.jsonl", "generate_facts.py"), ("scores.jsonl", "score_mle.py"), ("dataset.json", "no such file")],
)
def test_a_dataset_that_lacks_something_is_refused_before_anything_runs(work, missing, message):
    (work.dataset / missing).unlink()

    with pytest.raises(DataError, match=message):
        work.ablation(work.write_plan())


def test_a_split_that_is_not_there(work):
    with pytest.raises(DataError, match="no split 'elsewhere'"):
        work.ablation(work.write_plan(splits=["test", "elsewhere"]))
    with pytest.raises(DataError, match="no split 'validation'"):
        work.ablation(work.write_plan(**TUNED))


def _with_validation(info):
    return {**info, "splits": {**info["splits"], "validation": 1}}
