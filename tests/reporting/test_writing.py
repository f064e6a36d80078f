"""What a report is made from: runs that are recognised, parts that are missing, and files that are damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.predictions import results_key
from sage_trl.reporting.conditions import Condition
from sage_trl.reporting.folders import find_runs
from sage_trl.reporting.writing import ReportOptions, write_report
from sage_trl.storage import file_sha256, read_json, read_json_lines, write_json, write_jsonl
from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.reporting.made_runs import evidence, judgement, write_evaluation, write_training
from tests.reporting.parsed_page import ParsedPage


def written(tmp_path: Path, *runs: Path, **options) -> ParsedPage:
    output = tmp_path / "report.html"
    write_report(ReportOptions(runs=runs, output=output, quiet=True, **options))
    return ParsedPage.read(output)


@pytest.mark.parametrize(
    "condition",
    [
        Condition("one_shot", "test", None),
        Condition("zero_shot", "unseen", "blank_image"),
        Condition("one_shot", "a+b", None),
        Condition("one_shot", "a+b", "no_facts"),
    ],
)
def test_keys_of_results_are_read_back(condition):
    assert Condition.of_key(results_key(*condition)) == condition


def test_runs_are_found_in_a_folder_and_once(demo):
    found = find_runs([demo, demo / "evaluation", demo / "sfe"])

    assert [folder.path.name for folder in found.evaluations] == ["evaluation"]
    assert found.evaluations[0].dataset == demo / "data"
    assert [path.name for path in found.trainings] == ["edpo", "sfe"]


def test_a_training_alone_says_what_is_missing(tmp_path):
    page = written(tmp_path, write_training(tmp_path / "sfe", "loss"))

    assert page.tables == [] and [a["id"] for tag, a in page.elements if tag == "section" and "id" in a] == ["training"]
    assert "No evaluation was given: name an output directory of tools/evaluate.py as well." in page.text()
    assert all(attributes.get("type") for attributes, _ in page.scripts)  # no gallery, no script


def test_a_stopped_evaluation_is_shown_as_far_as_it_went(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    for name in ("metrics.json", "judgements.jsonl", "evidence.jsonl", "comparisons.json"):
        (evaluation / name).unlink()
    page = written(tmp_path, evaluation)

    assert len(page.data("index")["items"]) == 5
    text = page.text()
    assert "has replies and no metrics.json: its evaluation was stopped; run it again" in text
    assert "tools/evaluate.py --judge writes it" in text and "tools/evaluate.py --evidence writes it" in text


def test_lines_that_a_kill_cut_short_are_left_out(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    for name, lines in (("predictions.jsonl", 11), ("evidence.jsonl", 1)):
        path = evaluation / name
        whole = path.read_bytes()
        assert whole.count(b"\n") == lines
        path.write_bytes(whole + whole.splitlines()[0][:40])
    (group, *_) = written(tmp_path, evaluation).groups()

    assert len(group["questions"][0]["replies"]) == 3 and len(group["evidence"]) == 1


def test_a_dataset_that_is_gone_leaves_the_tables(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    write_json(evaluation / "evaluation.json", read_json(evaluation / "evaluation.json") | {"dataset": "/gone/ad_pl"})

    page = written(tmp_path, evaluation)
    assert "no longer at ad_pl: give --dataset DIR" in page.text()
    assert len(page.tables) == 5 and page.groups() == []
    assert len(written(tmp_path, evaluation, dataset=demo / "data").groups()) == 3


def test_answered_groups_that_the_dataset_lacks_are_counted(demo, tmp_path):
    other = write_small_ad_pl(tmp_path / "other")
    rows = (other / "ad_pl.jsonl").read_text().replace('"id": "g0"', '"id": "renamed"')
    (other / "ad_pl.jsonl").write_text(rows)
    digest = file_sha256(other / "ad_pl.jsonl")
    write_json(other / "dataset.json", read_json(other / "dataset.json") | {"sha256": digest})

    page = written(tmp_path, demo / "evaluation", dataset=other)
    assert "1 groups that were answered are not in the dataset small" in page.text()
    assert [group["id"] for group in page.groups()] == ["g1", "g2"]


def test_models_of_one_name_are_told_apart(demo, tmp_path):
    again = write_evaluation(tmp_path / "again", demo / "data")
    page = written(tmp_path, demo / "evaluation", again)

    names = ["alpha (evaluation)", "<b>beta</b> (evaluation)", "alpha (again)", "<b>beta</b> (again)"]
    assert page.data("index")["models"] == names
    assert page.data("index")["items"][0][-1] == "rrrrw-w-"


@pytest.mark.parametrize("known", [True, False], ids=["dataset known", "dataset unknown"])
def test_evaluations_of_equal_folders_are_told_apart_by_the_folders_above(demo, tmp_path, known):
    """As `tools/evaluate.py --output runs/seed0/evaluation` and the arms of `tools/ablate.py` leave them."""
    runs = [write_evaluation(tmp_path / seed / "evaluation", demo / "data") for seed in ("seed0", "seed1")]
    for run in runs:
        if not known:
            (run / "evaluation.json").unlink()
    page = written(tmp_path, *runs)

    names = [f"{model} ({seed}/evaluation)" for seed in ("seed0", "seed1") for model in ("alpha", "<b>beta</b>")]
    assert [row[0] for row in page.tables[0] if row[0] in names] == names
    labels = ["seed0/evaluation", "seed1/evaluation"]
    text = page.text()
    assert all(f"{label}: alpha ({label}), <b>beta</b> ({label}); 11 replies" in text for label in labels)
    if known:
        assert page.data("index")["models"] == names
        assert page.data("index")["items"][0][-1].count("-") == 2 and len(page.data("index")["items"][0][-1]) == 8
    else:
        assert all(f"Measured here, {label}, split test" in text for label in labels)


def test_datasets_of_one_name_and_folder_are_told_apart(demo, tmp_path):
    datasets = [shutil.copytree(demo / "data", tmp_path / place / "data") for place in ("a", "b")]
    runs = [write_evaluation(tmp_path / dataset.parent.name / "out", dataset) for dataset in datasets]

    text = written(tmp_path, *runs).text()
    assert "Measured here, small (a/data), split test" in text and "Measured here, small (b/data), split test" in text


def test_a_later_reply_counts(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    lines = (evaluation / "predictions.jsonl").read_text()
    first = lines.partition("\n")[0]
    (evaluation / "predictions.jsonl").write_text(lines + first.replace("Yes, a scratch.", "Yes, anew.") + "\n")

    assert written(tmp_path, evaluation).groups()[0]["questions"][0]["replies"][0]["text"] == "Yes, anew."


def test_a_judgement_of_another_reply_is_not_shown(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    predictions = [line for _, line in read_json_lines(evaluation / "predictions.jsonl")]
    [first, *_] = [line for line in predictions if (line["model"], line["group_id"]) == ("alpha", "g0")]
    rows = [judgement("alpha", "g0", "q1", "of this reply") | {"key": first["key"]}]
    rows += [judgement("alpha", "g0", "q1", "of an old file")]
    rows += [judgement("alpha", "g0", question, "of another reply") | {"key": "f" * 64} for question in ("q1", "q2")]
    write_jsonl(evaluation / "judgements.jsonl", rows)

    questions = written(tmp_path, evaluation).groups()[0]["questions"]
    shown = [[one["rationale"] for one in question["replies"][0]["judged"]] for question in questions]
    assert shown == [["of this reply", "of an old file"], []]


def test_replies_that_the_figures_do_not_count_are_noted(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    assert "replies are shown" not in written(tmp_path, evaluation).text()
    figures = read_json(evaluation / "metrics.json")
    figures["alpha"]["one_shot"]["questions"] = 2  # a later run with --limit 1
    write_json(evaluation / "metrics.json", figures)

    text = written(tmp_path, evaluation).text()
    assert text.count("replies are shown") == 1
    assert "alpha, one_shot: 5 replies are shown, the figures count 2: others are of an earlier run" in text


def test_without_a_reference_the_page_knows_that_nothing_was_selected(demo, tmp_path):
    evaluation = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    patches = [{"box": [0.0, 0.0, 0.1, 0.1], "similarity": None}]
    row = evidence("alpha", "g0") | {"selected": False, "attended": 1000, "patches": patches}
    write_jsonl(evaluation / "evidence.jsonl", [row | {"facts": [{"text": "It shines.", "attention": [0.91]}]}])

    [found] = written(tmp_path, evaluation).groups()[0]["evidence"]
    assert (found["selected"], found["attended"], found["patches"]) == (False, 1000, patches)
    assert found["facts"] == [{"text": "It shines.", "attention": [0.91]}]


def test_an_ablation_gives_rows_and_sweeps(tmp_path):
    def row(facts: int, patches: int, accuracy: float) -> dict:
        figures = {"accuracy": accuracy, "acc_g": 0.25, "sbert": None, "mle_rule": 3.5}
        return {
            **{"arm": "sfe", "title": f"SFE, facts {facts}, patches {patches}", "setting": "one_shot", "split": "test"},
            **{"grid": {"num_facts": facts, "num_selected_patches": patches}, "questions": 10, "groups": 2},
            "figures": {name: {"mean": value, "interval": None} for name, value in figures.items()},
        }

    rows = [row(facts, patches, 0.5 + 0.1 * facts + 0.01 * patches) for facts in (1, 2) for patches in (4, 16)]
    write_json(tmp_path / "sweep" / "table.json", {"version": 1, "title": "Figure 7", "seeds": [0, 1, 2], "rows": rows})

    page = written(tmp_path, tmp_path / "sweep")
    [table] = page.tables
    assert table[1] == ["Measured here, Figure 7, split test, mean of 3 seeds"]
    assert table[2] == ["SFE, facts 1, patches 4", *["–"] * 4, "64.0", "–", "25.0", "3.50 r"]
    titles = [a["aria-label"] for _, a in page.elements if a.get("class") == "chart"]
    assert titles == ["Accuracy, one-shot: Figure 7, test", "Score, one-shot: Figure 7, test"]
    text = page.text()
    assert "selected patches 4" in text and "selected patches 16" in text and "means over 3 seeds" in text


def test_a_sweep_over_lists(tmp_path):
    parts = (["projector"], ["projector", "fusion"])
    rows = [
        {
            **{"arm": "sfe", "title": f"SFE {trained} {shape}", "setting": "one_shot", "split": "test"},
            **{"grid": {"train_parts": trained, "tiny": shape}, "questions": 10, "groups": 2},
            "figures": {"accuracy": {"mean": 0.5, "interval": None}},
        }
        for trained in parts
        for shape in ({"text_layers": 1}, {"text_layers": 2})
    ]
    write_json(tmp_path / "sweep" / "table.json", {"version": 1, "title": "Parts", "seeds": [0], "rows": rows})

    text = written(tmp_path, tmp_path / "sweep").text()
    assert "['projector', 'fusion']" in text and "tiny {'text_layers': 2}" in text


def damaged(demo: Path, tmp_path: Path, name: str, content: str) -> Path:
    run = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    (run / name).write_text(content)
    return run


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metrics.json", "[]", "is not {model: {setting: figures}}"),
        ("comparisons.json", "{}", "is no list of comparisons"),
        ("predictions.jsonl", '{"key": 1}\n', "predictions.jsonl:1"),
        ("judgements.jsonl", '{"model": "alpha", "type": 9}\n', "judgements.jsonl:1"),
        ("evidence.jsonl", "{\n{}\n", "evidence.jsonl:1: not JSON"),
        ("evaluation.json", '{"version": 2}', "evaluation.json"),
        ("trainer_state.json", '{"log_history": 3}', "field 'log_history'"),
        ("metrics.jsonl", '{"step": 1}\n{"loss": 1}\n', "metrics.jsonl:2"),
        ("metrics.jsonl", '{"st\n{"step": 1}\n', "metrics.jsonl:1: not JSON"),
        ("table.json", '{"title": "a"}', "table.json"),
    ],
)
def test_damaged_files_are_named_and_the_old_report_stays(demo, tmp_path, name, content, expected):
    run = damaged(demo, tmp_path, name, content)
    (tmp_path / "report.html").write_text("before")

    with pytest.raises(DataError, match="remedy") as raised:
        written(tmp_path, run)
    assert expected in str(raised.value)
    assert (tmp_path / "report.html").read_text() == "before"


def test_attention_that_does_not_fit_its_patches_is_refused(demo, tmp_path):
    run = shutil.copytree(demo / "evaluation", tmp_path / "evaluation")
    row = evidence("alpha", "g0")
    row["facts"][1]["attention"] = [1.0]
    write_jsonl(run / "evidence.jsonl", [row])

    with pytest.raises(DataError, match=r"evidence.jsonl:1: .*1 shares of attention for 2 patches"):
        written(tmp_path, run)


@pytest.mark.parametrize(
    ("run", "output", "expected"),
    [
        ("empty", "report.html", "holds no evaluation, training or ablation"),
        ("nowhere", "report.html", "no such directory"),
        ("demo", "empty", "cannot be written"),
    ],
)
def test_mistakes_end_with_2_and_one_message(demo, tmp_path, run_tool, capsys, run, output, expected):
    (tmp_path / "empty").mkdir()

    assert run_tool(demo if run == "demo" else tmp_path / run, "--output", tmp_path / output, "--quiet") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ")
    assert expected in shown.err and "remedy:" in shown.err
    assert not (tmp_path / "report.html").exists()
