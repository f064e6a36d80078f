"""The table, from figures made by hand."""

from __future__ import annotations

import pytest

from sage_trl.errors import DataError
from sage_trl.storage import read_json


def test_table_json_and_table_md(work):
    work.say_accuracies({"seed-0/hard": 0.6, "seed-3/hard": 0.8, "seed-0/baseline": 0.25, "seed-3/baseline": 0.35})

    work.ablation(work.write_plan(splits=["test", "unseen"]), seeds=(0, 3)).run()

    table = read_json(work.output / "table.json")
    assert (table["version"], table["title"], table["seeds"]) == (1, "Small", [0, 3])
    assert [(row["split"], row["setting"]) for row in table["rows"][::4]] == [
        *(("test", "zero_shot"), ("test", "one_shot"), ("unseen", "zero_shot"), ("unseen", "one_shot")),
    ]
    hard = table["rows"][5]
    assert (hard["arm"], hard["title"], hard["control"], hard["questions"]) == ("hard", "Fact[Hard]", "hard_facts", 8)
    assert hard["figures"]["accuracy"]["mean"] == pytest.approx(0.7)
    assert hard["figures"]["accuracy"]["seeds"] == [0.6, 0.8]
    assert hard["figures"]["accuracy"]["interval"] == pytest.approx([0.5, 0.9])
    assert hard["figures"]["acc_g"]["mean"] == pytest.approx(0.35)
    assert (hard["figures"]["mle_rule"]["mean"], hard["figures"]["mle_rule"]["interval"]) == (2.0, [1.5, 2.5])
    markdown = (work.output / "table.md").read_text()
    assert "## one-shot, split `unseen`" in markdown
    assert "8 questions in 4 groups; the better constant answer gets 50.0%." in markdown
    assert "| Fact[Hard] | 70.0 (50-90) | 60.0 / 80.0 | 35.0 | - | 2.00 | 3 | - |" in markdown
    assert "| baseline | 30.0 (15-45) | 25.0 / 35.0 | 15.0 |" in markdown


def test_one_seed_has_its_own_interval_and_no_list_of_seeds(work):
    work.say_accuracies({"seed-0/hard": 0.6})

    work.ablation(work.write_plan()).run()

    markdown = (work.output / "table.md").read_text()
    assert "| Fact[Hard] | 60.0 (50-70) | 30.0 | - | 2.00 | 3 | - |" in markdown
    assert "one seed says nothing about the next" in markdown


def test_a_result_that_is_gone_is_named(work):
    plan = work.write_plan()
    work.ablation(plan).run()
    (work.output / "seed-0" / "evaluation" / "sfe" / "metrics.json").write_text("{}")

    with pytest.raises(DataError, match=r"evaluation/sfe/metrics\.json: no result 'zero_shot'"):
        work.ablation(plan).run()
