"""Recipes are read strictly: every key known, every value of its type, every message with a remedy."""

from pathlib import Path

import pytest
import yaml

from sage_trl.errors import RecipeError
from sage_trl.recipe import load_recipe, parse_overrides
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.sfe_config import SFEConfig
from tests.conftest import REPOSITORY

CPU = {"use_cpu": True, "bf16": False}
MINIMAL = {"stage": "sfe", "model": "tiny", "dataset": "data", "output_dir": "runs/x", **CPU}


@pytest.fixture
def write(tmp_path):
    def write_recipe(values=None, **more) -> Path:
        values = {**(values or {}), **more}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
        return path

    return write_recipe


def test_values_reach_their_configuration_with_the_right_type(write):
    recipe = load_recipe(write(**MINIMAL, learning_rate="2e-6", datasets=["mvtec"], tiny={"image_size": 32}))
    assert isinstance(recipe.training, SFEConfig)
    # YAML reads 2e-6 as text: it must become a number all the same.
    assert recipe.training.learning_rate == 2e-6
    assert recipe.training.max_length is None
    assert recipe.run.datasets == ["mvtec"]
    assert recipe.run.tiny_size.image_size == 32


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("sft", {"facts": "none", "reference_in_prompt": True, "train_parts": ["projector", "language_model"]}),
        ("sfe", {"facts": "fusion", "train_parts": ["projector", "fusion", "language_model"]}),
        ("dpo", {"eta": 0.0, "train_parts": ["projector", "language_model"]}),
        ("edpo", {"eta": 1.0, "objective": "dpo"}),
    ],
)
def test_each_stage_has_its_defaults(write, stage, expected):
    training = load_recipe(write(**{**MINIMAL, "stage": stage})).training
    assert {key: getattr(training, key) for key in expected} == expected


def test_overrides_win_and_are_read_as_yaml(write):
    words = ["--learning_rate", "1e-3", "--resume", "--datasets=[visa, mpdd]", "--reference-dropout", "0.5"]
    words.append("--drop-incomplete")
    recipe = load_recipe(write(**MINIMAL), words)
    assert recipe.training.learning_rate == 1e-3
    assert recipe.run.resume is True
    assert recipe.run.datasets == ["visa", "mpdd"]
    assert recipe.training.reference_dropout == 0.5
    assert recipe.run.drop_incomplete is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learnin_rate": 1e-3}, ["'learnin_rate'", "'learning_rate'"]),
        ({"fusion_value": "patch"}, ["'fusion_value'", "'fusion_values'"]),
        ({"tiny": {"image_sise": 32}}, ["'tiny.image_sise'", "'tiny.image_size'"]),
        ({"learning_rate": "fast"}, ["'learning_rate'", "'fast'", "float"]),
        ({"max_steps": 1.5}, ["'max_steps'", "1.5"]),
        ({"fusion_keys": "patches"}, ["'fusion_keys'", "'patches'", "'difference'"]),
        ({"train_parts": "fusion"}, ["'train_parts'", "'fusion'"]),
        ({"stage": "dpoo"}, ["'dpoo'", "edpo"]),
        ({"model": ...}, ["'model'"]),
        ({"stage": ["sfe"]}, ["['sfe']", "edpo"]),
        ({"stage": "edpo", "loss_type": ["aot"]}, ["loss_type", "aot"]),
        ({"learning_rate": True}, ["'learning_rate'", "True", "float"]),
        ({"max_steps": True}, ["'max_steps'", "True"]),
        ({"reference_dropout": 7}, ["reference_dropout", "7"]),
        ({"train_parts": ["fussion"]}, ["fussion", "fusion"]),
        ({"packing": True}, ["packing", "unpacked"]),
        ({"stage": "edpo", "eta": float("nan")}, ["'eta'", "nan"]),
        ({7: "x"}, ["7", "not a word"]),
        ({"learning_rate": -1}, ["learning_rate is -1.0", "0 or more"]),
        ({"max_steps": -5}, ["max_steps is -5", "-1 to train by epochs"]),
        ({"max_steps": 0}, ["max_steps is 0"]),
        ({"seed": 2**32}, ["seed is 4294967296", "from 0 to 4294967295"]),
        ({"bf16": True, "fp16": True}, ["fp16 and bf16", "mend the recipe"]),
        ({"num_selected_patches": 0}, ["num_selected_patches is 0", "1 or more"]),
        ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps is 0"]),
        ({"lora_r": 4, "lora_dropout": 1.0}, ["lora_dropout is 1.0", "not including 1"]),
        ({"num_train_epochs": 0, "faccts": 1}, ["num_train_epochs is 0", "'faccts'"]),
    ],
)
def test_faults_name_key_value_and_remedy(write, change, words):
    with pytest.raises(RecipeError) as error:
        load_recipe(write({**MINIMAL, **change}))
    message = str(error.value)
    assert "remedy:" in message
    for word in words:
        assert word in message


def test_a_machine_without_a_gpu_is_told_which_keys_to_set(write):
    with pytest.raises(RecipeError, match="remedy: without a GPU, set use_cpu: true and bf16: false"):
        load_recipe(write({**MINIMAL, "use_cpu": False, "bf16": True}))


def test_by_epochs_is_a_number_of_steps_too(write):
    assert load_recipe(write(**MINIMAL, max_steps=-1)).training.max_steps == -1


@pytest.mark.parametrize("words", [["1e-3"], ["--"], ["--seed", "1", "2"]])
def test_words_that_belong_to_no_key_are_refused(words):
    with pytest.raises(RecipeError, match="belongs to no key"):
        parse_overrides(words)


def test_a_value_that_is_no_yaml_is_refused():
    with pytest.raises(RecipeError, match=r"--output_dir: '\[1,' is not YAML"):
        parse_overrides(["--output_dir", "[1,"])


def test_no_is_a_word_where_a_word_is_wanted(write):
    assert load_recipe(write(**MINIMAL), ["--save_strategy", "no"]).training.save_strategy == "no"
    assert load_recipe(write(**MINIMAL), ["--gradient_checkpointing", "no"]).training.gradient_checkpointing is False
    assert load_recipe(write(**MINIMAL), ["--facts", "none"]).training.facts == "none"
    with pytest.raises(RecipeError, match=r"'facts'.*'soft'"):
        load_recipe(write(**MINIMAL), ["--facts", "soft"])


def test_a_directory_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="directory"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"), [(b"- a\n", "list"), (b"a: [", "not YAML"), (b"model: caf\xe9", "not YAML")]
)
def test_a_file_that_is_no_recipe(tmp_path, text, reason):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=reason):
        load_recipe(path)


def test_a_missing_recipe(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "sfe.yaml")


RECIPES = [path for path in sorted((REPOSITORY / "recipes").rglob("*.yaml")) if "\nstage:" in path.read_text()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_is_valid(path):
    recipe = load_recipe(path, ["--bf16", "false", "--use_cpu", "true"])
    assert f"accelerate launch tools/train.py recipes/{path.relative_to(REPOSITORY / 'recipes')}" in path.read_text()
    assert recipe.run.stage in path.stem


def test_the_paper_s_values_are_in_the_recipes():
    for name, config, dataset in (("sfe", SFEConfig, "mvtec"), ("edpo", EntropyDPOConfig, "visa")):
        recipe = load_recipe(REPOSITORY / "recipes" / f"{name}.yaml", ["--bf16", "false", "--use_cpu", "true"])
        training = recipe.training
        assert isinstance(training, config)
        assert training.learning_rate == 2e-6
        assert training.per_device_train_batch_size * 8 == 32
        assert training.warmup_steps == 1000
        assert training.max_grad_norm == 1.0
        assert recipe.run.datasets == [dataset]
        assert "bf16: true" in (REPOSITORY / "recipes" / f"{name}.yaml").read_text()
