"""Released shapes from their configuration: their sizes by hand, and plans on them through the command line."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time

import pytest
import yaml
from PIL import Image

from sage_trl.models.backbones.internvl import SageInternVLProcessor
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.parts import set_trainable_parts
from sage_trl.planning import on_paper
from sage_trl.planning.command import memory_size
from sage_trl.planning.memory import OVERRIDES, plan_memory
from sage_trl.planning.on_paper import LARGEST_GRID, Text, Vision, put_on_paper
from sage_trl.recipe import load_recipe
from tests.conftest import REPOSITORY
from tests.tools.conftest import run_tool_file

__all__ = ["run_tool_file"]
RECIPES = REPOSITORY / "recipes"


def by_hand(vision: tuple[int, int, int, bool], text: tuple[int, int, int, int, int], *, bias: bool) -> dict[str, int]:
    """Parameters per part: vision of width, intermediate width, layers; text of those, key/value width, vocabulary."""
    width, wide, layers, is_6b = vision
    attention = 4 * width * width + width + (2 * width if is_6b else 3 * width)  # q/k norms, or biases of q, k and v
    block = attention + 2 * width * wide + wide + width + (2 if is_6b else 4) * width + 2 * width
    embeddings = 3 * 14 * 14 * width + width + width + (1 + 32 * 32) * width
    columns, inner, depth, shared, vocabulary = text
    decoder = 2 * columns * columns + 2 * columns * shared + 3 * columns * inner + 2 * columns
    decoder += columns + 2 * shared if bias else 0
    return {
        "vision_encoder": layers * block + embeddings,
        "projector": 2 * 4 * width + 4 * width * columns + columns + columns * columns + columns,
        "fusion": 4 * columns * columns + columns + 2 * columns,
        "input_embeddings": vocabulary * columns,
        "language_model": depth * decoder + columns + vocabulary * columns,
    }


SMALL, LARGE = (1024, 4096, 24, False), (3200, 12800, 45, True)
# The hub tells the number of parameters of the released checkpoints, in millions: without a fusion.
RELEASED = {
    "internvl2-1b": (by_hand(SMALL, (896, 4864, 24, 128, 151655), bias=True), 938),
    "internvl2-8b": (by_hand(SMALL, (4096, 14336, 32, 1024, 92553), bias=False), 8075),
    "internvl2-26b": (by_hand(LARGE, (6144, 16384, 48, 1024, 92553), bias=False), 25514),
    "internvl2-40b": (by_hand(LARGE, (7168, 20480, 60, 1024, 64009), bias=False), 40069),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RELEASED)
def test_parts_are_as_large_as_by_hand(name, tmp_path):
    recipe = put_on_paper(load_recipe(RECIPES / "edpo.yaml", OVERRIDES), name, 2, tmp_path)
    model, _ = load_pretrained(recipe.run.model, weights=False)
    parts = {size.part: size.parameters for size in set_trainable_parts(model, ["projector"])}
    expected, millions = RELEASED[name]
    assert parts == expected
    assert round((sum(parts.values()) - parts["fusion"]) / 1e6) == millions


@pytest.fixture
def tiny_shape(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a shape that takes no time."""
    text = on_paper.SHAPES["internvl2-40b"][1]._replace(
        width=32, intermediate=48, layers=2, heads=8, key_value_heads=2, vocabulary=2048
    )
    monkeypatch.setitem(on_paper.SHAPES, "tiny", (Vision(24, 40, 2, 2, is_6b=True), Text(*text)))
    return "tiny"


@pytest.mark.parametrize("stage", ["sfe", "edpo"])
@pytest.mark.parametrize("tiles", [1, 3])
def test_the_group_is_as_large_as_it_says(stage, tiles, tiny_shape, tmp_path):
    recipe = put_on_paper(load_recipe(RECIPES / f"{stage}.yaml", OVERRIDES), tiny_shape, tiles, tmp_path)
    plan = plan_memory(recipe)
    # Five questions, of two pairs each in stage 2.
    assert plan.rows == {"sfe": 5, "edpo": 10}[stage]
    trees, tokens = plan.run.batch
    # Image, facts, four questions of at least 20 words with one best answer, or two with four answers, of 60.
    assert trees == 1
    answers = {"sfe": 4 * 80, "edpo": 2 * 20 + 8 * 60}[stage]
    assert 256 * tiles + 10 + answers < tokens < 256 * tiles + 10 + answers + 350


@pytest.mark.parametrize("tiles", [1, 3, 13, LARGEST_GRID + 1])
def test_an_image_is_cut_into_as_many_tiles_as_asked_for(tiles, tiny_shape, tmp_path):
    recipe = put_on_paper(load_recipe(RECIPES / "sfe.yaml", OVERRIDES), tiny_shape, tiles, tmp_path)
    with Image.open(tmp_path / "dataset" / "test.png") as image:
        width, height = image.size
    processor = SageInternVLProcessor.from_pretrained(recipe.run.model)
    tokens = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"]
    # Between a token where the image begins and one where it ends.
    assert tokens == [1 + 256 * tiles + 1]


def test_many_gpus_on_the_command_line(tiny_shape, tmp_path, run_tool_file, capfd):
    config = tmp_path / "fsdp2.yaml"
    fsdp = {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
    config.write_text(yaml.safe_dump({"distributed_type": "FSDP", "num_processes": 4, "fsdp_config": fsdp}))
    fixed = ("train.py", RECIPES / "edpo_lora.yaml", "--plan", "--shape", tiny_shape, "--tiles", "1")

    def plan(*options: object) -> tuple[str, int]:
        assert run_tool_file(*fixed, *options) == 0
        shown = capfd.readouterr().out
        return shown, int(re.search(r"│ all +│ +([\d,]+) │", shown)[1].replace(",", ""))

    sharded, total = plan("--accelerate_config", config, "--gpu_memory", "1GiB")
    assert "Memory per GPU of 4, fsdp2" in sharded
    assert "fits 1.00 GiB." in sharded
    assert re.search(r"Work of one such batch: \d[\d.,]* TFLOP", sharded)
    assert re.search(r"Without gradient checkpointing activations would take \d", sharded)
    assert plan("--processes", 4)[1] == total
    alone, all_of_it = plan("--gpu_memory", "0.001GB")
    assert "does not fit 0.00 GiB." in alone and all_of_it > 0
    assert plan("--accelerate_config", config, "--processes", 2)[1] > total


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu_memory", "80"), ["--gpu_memory", "'80' is no size of memory", "80GB"]),
        (("--accelerate_config", "nowhere.yaml"), ["nowhere.yaml: no such accelerate configuration", "remedy"]),
        (("--accelerate_config", "x.yaml", "--sharding", "ddp"), ["not allowed with"]),
        (("--shape", "internvl2-40c"), ["--shape", "internvl2-40b"]),
        (("--tiles", "2"), ["--tiles", "no image has 2 tiles", "3 to 65"]),
        (("--tiles", "66"), ["no image has 66 tiles"]),
        (("--sharding", "zero3"), ["--sharding needs --processes", "remedy"]),
    ],
)
def test_bad_input(arguments, words, tiny_shape, run_tool_file, capfd):
    shape = () if "--shape" in arguments else ("--shape", tiny_shape)
    assert run_tool_file("train.py", RECIPES / "sfe.yaml", "--plan", *shape, *arguments) == 2
    written = capfd.readouterr().err
    assert "Traceback" not in written
    for word in words:
        assert word in written


@pytest.mark.parametrize("option", ["--processes", "--sharding", "--accelerate_config", "--shape", "--tiles"])
def test_options_of_a_plan_need_one(option, run_tool_file, capfd):
    value = {"--sharding": "ddp", "--shape": "internvl2-1b"}.get(option, "3")
    assert run_tool_file("train.py", RECIPES / "sfe.yaml", option, value) == 2
    assert f"{option} needs --plan" in capfd.readouterr().err


def test_tiles_need_a_shape(run_tool_file, capfd):
    assert run_tool_file("train.py", RECIPES / "sfe.yaml", "--plan", "--tiles", "3") == 2
    assert "--tiles needs --shape" in capfd.readouterr().err


def test_sizes_of_memory():
    assert memory_size("80GB") == 80_000_000_000
    assert memory_size("79.5 gib") == int(79.5 * 2**30)


@pytest.mark.soak
@pytest.mark.parametrize("recipe", ["sfe", "sfe_lora", "sfe_qlora", "edpo", "edpo_lora", "edpo_qlora"])
def test_the_largest_is_planned_in_a_minute_and_8_gb(recipe):
    command = [sys.executable, REPOSITORY / "tools" / "train.py", RECIPES / f"{recipe}.yaml", "--plan"]
    command += ["--shape", "internvl2-40b", "--processes", "8", "--gpu_memory", "80GB"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    start = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{recipe}: {time.monotonic() - start:.0f} s", result.stdout, sep="\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of this process's own time: others may run beside it.
    assert used.ru_utime - before < 60
    assert used.ru_maxrss * 1024 < 8 * 10**9
