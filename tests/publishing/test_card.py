"""What the model card says, and that its usage snippet runs on a model from the hub."""

from __future__ import annotations

import re
import sys

import pytest
import yaml

from sage_trl.errors import DataError
from sage_trl.publishing.card import CardFacts, render_card
from tests.conftest import picture
from tests.publishing.conftest import hub_environment, run_record
from tests.warm import run_warm

PROMPTING = {"facts": "fusion", "reference_in_prompt": False}
FIGURES = {
    "accuracy": 0.8125,
    "accuracy_by_level": {"standard_comparison": 0.5},
    "accuracy_macro": 0.7,
    "acc_g": 0.25,
    "unreadable": 3,
    "questions": 160,
    "majority_accuracy": 0.51,
    "mle_rule": {"type": 3.0, "location": 4.0, "logic": 5.0, "mean": 4.0},
    "intervals": {"accuracy": [0.75, 0.875]},
}


def header(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_header_is_what_the_hub_reads():
    found = header(render_card(CardFacts("me/x", run_record(), PROMPTING, licence="apache-2.0")))
    assert found == {
        "base_model": "acme/base-vlm",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": "apache-2.0",
        "tags": ["sage", "trl", "industrial-inspection", "anomaly-detection", "sfe"],
        "datasets": ["plates"],
    }
    adapter = header(render_card(CardFacts("me/x", run_record(), PROMPTING, is_adapter=True)))
    assert adapter["library_name"] == "peft" and adapter["base_model_relation"] == "adapter"
    local = header(render_card(CardFacts("me/x", run_record(base_model=None, base_revision=None), PROMPTING)))
    assert "base_model" not in local


def test_both_stages_are_told():
    card = render_card(CardFacts("me/x", run_record("edpo", chain=(run_record(),)), PROMPTING))
    for words in (
        *(
            "`acme/base-vlm`",
            "0123456789abcdef",
            "sfe, then edpo",
            "1234 questions",
            "1234 pairs",
            "CC-BY-4.0",
            "ab" * 32,
        ),
        *("| rows a step | 32 | 32 |", "| peak learning rate | 2e-06 | 2e-06 |", "| torch | 2.13.0 | 2.13.0 |"),
        *(r"$\beta = 0.1$ and $\eta = 0.5$", r"-p_i \log p_i", r"\max_j \cos", "template-bank", "mle_rule"),
        "No evaluation was supplied",
    ):
        assert words in card, words


def test_the_paper_s_objective_has_its_own_equation():
    record = run_record("edpo")
    paper = record.model_copy(update={"method": {**record.method, "objective": "paper", "entropy": "surprisal"}})
    card = render_card(CardFacts("me/x", paper, PROMPTING))
    assert r"\mathrm{KL}(\pi \,\|\, \pi_{ref})" in card and r"$\lambda = 0.2$" in card
    assert r"H(a_i) = -\log p_i" in card and r"\pi_{ref}(a_w)" not in card


def test_the_evaluation_table_puts_this_model_first():
    results = {"sfe": {"one_shot": FIGURES}, "edpo": {"zero_shot": FIGURES | {"mle_rule": None}}}
    card = render_card(CardFacts("me/x", run_record(), PROMPTING, results=results, model_name="edpo"))
    rows = [line for line in card.splitlines() if "_shot |" in line]
    assert rows == [
        "| edpo | zero_shot | 81.2 | 75.0 to 87.5 | 50.0 | - | - | 70.0 | 25.0 | 51.0 | 3 | 160 | - |",
        "| sfe | one_shot | 81.2 | 75.0 to 87.5 | 50.0 | - | - | 70.0 | 25.0 | 51.0 | 3 | 160 | 4.00 |",
    ]
    with pytest.raises(DataError, match="holds no model 'other', only edpo, sfe"):
        render_card(CardFacts("me/x", run_record(), PROMPTING, results=results, model_name="other"))


def test_the_card_tells_that_only_some_groups_were_asked():
    results = {"sfe": {"one_shot": FIGURES | {"limit": 3}}}
    card = render_card(CardFacts("me/x", run_record(), PROMPTING, results=results, model_name="sfe"))
    assert "\n\n- sfe, one_shot: only the first 3 groups of the split were asked (--limit)\n" in card


def test_a_model_without_a_record_says_so():
    card = render_card(CardFacts("me/x", None, PROMPTING))
    assert "No record of the training was kept" in card
    assert "base_model" not in header(card)


def test_the_usage_snippet_runs_on_what_was_published(finished_run, hub, publish, tmp_path):
    result = publish(finished_run, "--repo-id", "me/sage-tiny")
    assert result.returncode == 0, result.stderr
    card = hub.repositories["me/sage-tiny"].files["README.md"].decode()
    [code] = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, seed in (("part.png", 1), ("good_part.png", 2)):
        picture(seed).save(elsewhere / name)
    (elsewhere / "use.py").write_text(code)
    ran = run_warm([sys.executable, "use.py"], cwd=elsewhere, env=hub_environment(hub.url, elsewhere))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip(), "no reply"
    assert hub.counts["/resolve/"], "nothing was downloaded"
