"""Imports go downwards only, and the public names are there."""

import ast

import pytest

import sage_trl
from tests.conftest import REPOSITORY

LAYERS = [
    {"errors"},
    {"command_line"},
    {"storage", "environment"},
    {"records", "lexicon", "llm_client"},
    {"trees", "steps"},
    {"preferences", "models", "run_record"},
    {"data"},
    {"judge", "facts", "review"},
    {"trainer", "evaluation", "recipe_numbers"},
    {"recipe", "publishing", "reporting"},
    {"model_building", "recording", "run_folder"},
    {"resuming"},
    {"training"},
    {"planning"},
    {"recipe_check", "ablation"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PACKAGE = REPOSITORY / "sage_trl"
SOURCES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if module and module.startswith("sage_trl."):
                yield module.split(".")[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_go_downwards_only(path):
    part = path.relative_to(REPOSITORY / "sage_trl").parts[0].removesuffix(".py")
    for imported in imported_parts(path):
        assert imported == part or RANK[imported] < RANK[part], f"{part} imports {imported}"


def test_training_never_imports_the_judge():
    for part in ("trainer", "training.py", "recipe.py"):
        source = REPOSITORY / "sage_trl" / part
        for path in source.rglob("*.py") if source.is_dir() else [source]:
            assert "judge" not in set(imported_parts(path)), path


@pytest.mark.parametrize("name", sage_trl.__all__)
def test_public_names_can_be_imported(name):
    assert getattr(sage_trl, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SFETrainr"):
        _ = sage_trl.SFETrainr
