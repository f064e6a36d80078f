"""What no line of ours may do: run code that data brings along, or take a secret from a flag or a recipe."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from sage_trl.errors import RecipeError
from sage_trl.recipe import CONFIGS, RunArguments, field_types, load_recipe
from tests.conftest import REPOSITORY

SOURCES = sorted(
    path for folder in ("sage_trl", "tools", "benchmarks", ".ci") for path in (REPOSITORY / folder).rglob("*.py")
)
MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
CALLS |= {"yaml.full_load", "np.load", "joblib.load", "pd.read_pickle", "torch.hub.load"}
SECRET = re.compile(r"(?:^|[-_])(?:token|secret|password|api[-_]?key|credentials?)$")


def forbidden(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                yield name
            for keyword in node.keywords:
                given = keyword.arg, ast.unparse(keyword.value)
                if given in (("shell", "True"), ("trust_remote_code", "True"), ("weights_only", "False")):
                    yield f"{name}({keyword.arg}={given[1]})"


def flags(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            yield from (one.value for one in node.args if isinstance(one, ast.Constant))


def test_nothing_runs_what_data_brings_along_and_no_flag_takes_a_secret():
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert list(forbidden(tree)) == [], path
        assert [flag for flag in flags(tree) if SECRET.search(flag)] == [], path


def test_the_rules_find_what_they_forbid():
    code = "import pickle\ntorch.load(path)\nload(x, trust_remote_code=True)\nparser.add_argument('--api-key')"
    assert list(forbidden(ast.parse(code))) == ["pickle", "torch.load", "load(trust_remote_code=True)"]
    assert [flag for flag in flags(ast.parse(code)) if SECRET.search(flag)] == ["--api-key"]


def test_a_recipe_takes_no_secret(tmp_path):
    keys = {key for kind in (RunArguments, *CONFIGS.values()) for key in field_types(kind)}
    # The two others are words of a tokenizer.
    assert {key for key in keys if SECRET.search(key)} == {"hub_token", "eos_token", "pad_token"}
    path = tmp_path / "recipe.yaml"
    path.write_text("stage: sfe\nmodel: tiny\ndataset: d\noutput_dir: o\nhub_token: hf_planted0123456789\n")
    with pytest.raises(RecipeError, match="hub_token is no recipe key\n  remedy: set HF_TOKEN") as refused:
        load_recipe(path)
    assert "planted" not in str(refused.value)
