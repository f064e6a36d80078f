"""Plans: what is refused, with which words, and what grids become."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sage_trl.ablation.arms import build_arms, parse_changes, recipe_words, trainings_of
from sage_trl.ablation.plan import read_plan
from sage_trl.errors import DataError, RecipeError
from sage_trl.storage import write_json
from tests.ablation.conftest import PLAN
from tests.conftest import REPOSITORY

STAGES = PLAN["stages"]
NO_CHANGES = parse_changes(None, [], [])
PLANS = ("table3", "controls", "selection", "figure7")


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"sage": {}}, ["unknown key 'sage'", "did you mean 'stages'?"]),
        ({"stages": {**STAGES, "sfe": {"recip": "sfe.yaml"}}}, ["stages.sfe: unknown key 'recip'", "'recipe'"]),
        ({"arms": {"sfe": {"stage": "sfe", "titel": "SFE"}}}, ["arms.sfe: unknown key 'titel'", "'title'"]),
        ({"arms": {"sfe": {"stage": "sef"}}}, ["arm 'sfe' has the stage 'sef'", "base, sfe, dpo"]),
        ({"stages": {**STAGES, "sfe": {"recipe": "sfe.yaml", "from": "bass"}}}, ["stage 'sfe' starts from 'bass'"]),
        ({"stages": {**STAGES, "base": {"recipe": "sft.yaml", "from": "dpo"}}}, ["'dpo' starts from itself", "'sfe'"]),
        ({"stages": {**STAGES, "sfe": {"recipe": "sfe.yaml", "from": "sfe"}}}, ["stage 'sfe' starts from itself"]),
        ({"stages": {**STAGES, "spare": {"recipe": "sft.yaml"}}}, ["stage 'spare' is of no use to any arm"]),
        (
            {"stages": {**STAGES, "sfe": {"recipe": "sfe.yaml", "from": "base", "tune": {"learning_rate": [1e-3]}}}},
            ["stage 'dpo' starts from 'sfe'", "several (grid, tune)"],
        ),
        (
            {"stages": {**STAGES, "dpo": {**STAGES["dpo"], "grid": {"eta": [1.0]}}}},
            ["stage 'dpo' says 'eta' twice"],
        ),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else "",
)
def test_faults_of_a_plan(work, changes, messages):
    path = work.write_plan(**changes)

    with pytest.raises(RecipeError) as refused:
        read_plan(path)

    assert all(message in str(refused.value) for message in [str(path), "remedy", *messages])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"settings": ["two_shot"]}, "settings.0"),
        ({"settings": []}, "settings"),
        ({"arms": {}}, "arms"),
        ({"arms": {"Full model": {"stage": "dpo"}}}, "arms.Full model"),
        ({"arms": {"sfe": {"stage": "dpo", "control": "blank"}}}, "arms.sfe.control"),
        ({"stages": {**STAGES, "sfe": {"recipe": "sfe.yaml", "grid": {"eta": []}}}}, "stages.sfe.grid.eta"),
    ],
)
def test_wrong_values_name_their_field(work, changes, field):
    with pytest.raises(DataError, match=f"field '{field}"):
        read_plan(work.write_plan(**changes))


def test_all_faults_are_told_at_once(work):
    path = work.write_plan(arms={"a": {"stage": "x"}, "b": {"stage": "y"}})

    with pytest.raises(RecipeError, match=r"'x'(.|\n)*'y'(.|\n)*'base' is of no use"):
        read_plan(path)


@pytest.mark.parametrize(("text", "message"), [("- a", "list"), ("a: [", "not YAML")])
def test_a_file_that_is_no_plan(tmp_path, text, message):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_plan(tmp_path / "plan.yaml")
    with pytest.raises(RecipeError, match="no such plan"):
        read_plan(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"recipe": "sef.yaml"}, r"sef\.yaml: no such recipe"),
        ({"recipe": "sfe.yaml", "override": {"lerning_rate": 1}}, "unknown key 'lerning_rate'"),
        ({"recipe": "sfe.yaml", "override": {"learning_rate": "fast"}}, "'learning_rate' has the value 'fast'"),
        ({"recipe": "sfe.yaml", "grid": {"facts": ["soft"]}}, "'facts' has the value 'soft'"),
        ({"recipe": "sfe.yaml", "override": {"num_facts": 0}}, "num_facts is 0"),
    ],
)
def test_what_a_recipe_cannot_have_is_refused_before_anything_runs(work, stage, message):
    plan = read_plan(work.write_plan(stages={"sfe": stage}, arms={"sfe": {"stage": "sfe"}}))
    with pytest.raises(RecipeError, match=message):
        build_arms(plan, work.root, NO_CHANGES)


NO_FACTS = {"arms": {"hidden": {"stage": "sfe", "control": "no_facts"}}}


@pytest.mark.parametrize(
    "stage",
    [
        {"recipe": "sft.yaml"},
        {"recipe": "sfe.yaml", "override": {"facts": "none"}},
        {"recipe": "sfe.yaml", "tune": {"facts": ["fusion", "none"]}},
        {"recipe": "sfe.yaml", "plain": True},
    ],
)
def test_facts_cannot_be_hidden_from_what_never_saw_any(work, stage):
    """`tools/evaluate.py --no-facts` gives its ordinary result, under its ordinary key."""
    plan = read_plan(work.write_plan(stages={"sfe": stage}, **NO_FACTS))
    with pytest.raises(
        RecipeError, match=r"arm 'hidden': control is 'no_facts', but stage 'sfe' .* without facts\n.*rem"
    ):
        build_arms(plan, work.root, NO_CHANGES)


@pytest.mark.parametrize("facts", ["fusion", "hard", "none"])
def test_facts_of_a_model_that_takes_a_stage_s_place(work, facts):
    write_json(work.root / "mine" / "sage_inference.json", {"facts": facts})
    plan = read_plan(work.write_plan(stages={"sfe": {"recipe": "sfe.yaml"}}, **NO_FACTS))
    changes = parse_changes(None, [f"sfe={work.root / 'mine'}"], [])
    if facts == "none":
        with pytest.raises(RecipeError, match="is trained without facts"):
            build_arms(plan, work.root, changes)
    else:
        assert [arm.control for arm in build_arms(plan, work.root, changes)] == ["no_facts"]


@pytest.mark.parametrize(
    ("trained", "values", "message"),
    [
        (["base"], [], "'base' is not STAGE=MODEL"),
        (["bass=runs/base"], [], "stage 'bass' is not in the plan"),
        ([], ["max_steps"], "'max_steps' is not KEY=VALUE"),
        ([], ["bass.max_steps=1"], "stage 'bass' is not in the plan"),
        ([], ["max_steps=[1"], "is not YAML"),
    ],
)
def test_faults_of_the_command_line(work, trained, values, message):
    with pytest.raises(RecipeError, match=message):
        build_arms(read_plan(work.write_plan()), work.root, parse_changes(None, trained, values))


def test_what_a_grid_varies_cannot_be_set(work):
    stages = {"dpo": {"recipe": "edpo.yaml", "grid": {"pairs": ["min", "max"]}}}
    plan = read_plan(work.write_plan(stages=stages, arms={"dpo": {"stage": "dpo"}}))
    with pytest.raises(RecipeError, match="pairs is what the plan varies of stage 'dpo'"):
        build_arms(plan, work.root, parse_changes(None, [], ["pairs=both"]))


def test_a_grid_is_every_combination_and_each_has_every_candidate(work):
    stages = {
        "dpo": {
            "recipe": "edpo.yaml",
            "grid": {"pairs": ["min", "max"], "eta": [0.0, 1.0]},
            "tune": {"beta": [0.1, 0.2, 0.3]},
        }
    }
    plan = read_plan(work.write_plan(stages=stages, arms={"dpo": {"stage": "dpo", "title": "E-DPO"}}))
    arms = build_arms(plan, work.root, NO_CHANGES)
    assert [arm.title for arm in arms] == [
        *("E-DPO, pairs min, eta 0.0", "E-DPO, pairs min, eta 1.0"),
        *("E-DPO, pairs max, eta 0.0", "E-DPO, pairs max, eta 1.0"),
    ]
    assert [len(arm.candidates) for arm in arms] == [3] * 4
    assert arms[2].candidates[1].values == {"pairs": "max", "eta": 0.0, "beta": 0.2}
    assert arms[2].candidates[1].name == "dpo-pairs=max-eta=0.0-beta=0.2"
    assert all(training.is_preference for arm in arms for training in arm.candidates)


def test_the_number_of_facts_is_handed_down(work):
    stages = {**STAGES, "sfe": {**STAGES["sfe"], "override": {"num_facts": 1}}}
    arms = build_arms(read_plan(work.write_plan(stages=stages)), work.root, NO_CHANGES)
    by_name = {one.name: one for one in trainings_of(one for arm in arms for one in arm.candidates)}
    assert {name: one.num_facts for name, one in by_name.items()} == {"base": None, "sfe": 1, "dpo": 1}


@pytest.mark.parametrize("value", [0.0, 1, "none", "1e-4", "true", None, True, ["a", "b"], {"text_layers": 1}, "a: b"])
def test_words_of_a_value_are_read_as_that_value(value):
    _, word = recipe_words({"key": value})
    assert yaml.safe_load(word) == value


@pytest.mark.parametrize("name", PLANS)
def test_plans_of_the_repository(name):
    path = REPOSITORY / "recipes" / "ablations" / f"{name}.yaml"
    plan = read_plan(path)
    arms = build_arms(plan, path.parent, NO_CHANGES)
    opening = path.read_text().partition("\nstages:")[0]
    assert f"python tools/ablate.py recipes/ablations/{name}.yaml " in opening
    full = build_arms(plan, path.parent, parse_changes(REPOSITORY / "recipes", ["base=some/model"], []))
    assert [arm.name for arm in full] == [arm.name for arm in arms]


def test_the_table_s_rows_are_the_paper_s():
    path = REPOSITORY / "recipes" / "ablations" / "table3.yaml"
    arms = build_arms(read_plan(path), path.parent, NO_CHANGES)
    assert [arm.title for arm in arms] == [
        *("Baseline", "+ Fact[Hard]", "+ Fact[FE]", "+ DPO", "SFE + DPO", "Full model"),
    ]
    lines = {arm.name: [one.name for one in arm.candidates[0].line] for arm in arms}
    assert lines["full"] == ["base", "sfe", "full"]
    assert lines["dpo"] == ["base", "dpo"]
    assert len(trainings_of(arm.candidates[0] for arm in arms)) == 5


def test_equal_steps_in_the_controls():
    path = REPOSITORY / "recipes" / "ablations" / "controls.yaml"
    for recipes in ("recipes", "recipes/demo"):
        steps = {
            str(yaml.safe_load((REPOSITORY / recipes / name).read_text()).get(key))
            for name in ("sft.yaml", "sfe.yaml")
            for key in ("max_steps",)
        }
        assert len(steps) == 1, recipes
    assert Path(path).is_file()
