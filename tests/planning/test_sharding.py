"""What each GPU holds: by hand on a few parameters, and as torch and accelerate really shard a model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from sage_trl.data.rows import PairCounts
from sage_trl.errors import RecipeError
from sage_trl.model_building import build_models
from sage_trl.planning.dry_run import DryRun, Usage
from sage_trl.planning.memory import plan_memory
from sage_trl.planning.parameters import EMBEDDINGS, HEAD, ROOT, ParameterShape
from sage_trl.planning.sharding import Placement, per_gpu, read_placement
from sage_trl.training import build_trainer, load_rows


def parameter(unit: str, rows: int, columns: int, *, trains: bool = True, packed: bool = False) -> ParameterShape:
    """In fp32 with Adam's two moments and its step, or a frozen or packed one without."""
    state = (8, 4) if trains else (0, 0)
    return ParameterShape(unit, rows, rows * columns, 1 if packed else 4, trains, packed, *state)


RUN = DryRun(
    usage=Usage(
        weights=4 * (10 * 8 + 6 * 8 + 2 * 5 * 8 + 3 * 8) + 100,
        reference=4 * 7 * 8,
        buffers=11,
        gradients=4 * (2 * 5 * 8 + 3 * 8),
        optimizer=8 * (2 * 5 * 8 + 3 * 8) + 3 * 4,
        activations=1000,
        recomputed=50,
        weight_copies=70,
    ),
    batch=(1, 10),
    flops=0,
    unbroken_activations=2000,
    recomputed_copies=20,
    parameters=(
        parameter(EMBEDDINGS, 10, 8, trains=False),
        parameter(HEAD, 6, 8, trains=False),
        parameter("layers.0", 5, 8),
        parameter("layers.1", 5, 8),
        parameter("layers.1", 100, 1, trains=False, packed=True),
        parameter(ROOT, 3, 8),
    ),
    reference=(parameter(ROOT, 7, 8, trains=False),),
)


def test_fsdp2_by_hand():
    usage = per_gpu(RUN, Placement(4, "fsdp2"), compute_bytes=2)
    # Rows per GPU, rounded up: 10 -> 3, 6 -> 2, 5 -> 2 twice, 3 -> 1; of 8 columns in fp32. The packed one is whole.
    assert usage.weights == 4 * 8 * (3 + 2 + 2 + 2 + 1) + 100
    assert usage.gradients == 4 * 8 * (2 + 2 + 1)
    assert usage.optimizer == 8 * 8 * (2 + 2 + 1) + 3 * 4
    assert usage.reference == 4 * 8 * 2
    # Gathered in two bytes, padded to four GPUs: head 8 rows, root 4 rows with gradients; the embeddings are the
    # largest unit, of 12 rows: three of them in the forward, or two and two times the gradients of a layer of 8 rows.
    always = 2 * 8 * (8 + 4 + 4)
    assert usage.gathered == always + max(3 * 2 * 8 * 12, 2 * 2 * 8 * 12 + 2 * 2 * 8 * 8)
    assert (usage.buffers, usage.activations, usage.recomputed, usage.weight_copies) == (11, 1000, 30, 0)


def test_a_reference_is_gathered_as_a_whole():
    large = DryRun(**{**vars(RUN), "reference": (parameter(ROOT, 700, 8, trains=False),)})
    # Gathered and copied, beside root and head.
    assert per_gpu(large, Placement(4, "fsdp2"), 2).gathered == 2 * 8 * (4 + 8) + 2 * 2 * 8 * 700


def test_offloading_leaves_what_is_packed():
    usage = per_gpu(RUN, Placement(4, "fsdp2", offloads=True), 2)
    assert (usage.weights, usage.reference, usage.gradients, usage.optimizer) == (100, 0, 0, 0)
    assert (usage.activations, usage.recomputed) == (1000, 30)


def test_one_gpu_with_offloading_or_zero_is_not_one_without():
    offloaded = per_gpu(RUN, Placement(1, "fsdp2", offloads=True), 2)
    assert (offloaded.weights, offloaded.gradients, offloaded.optimizer) == (100, 0, 0)
    trained = 2 * 5 * 8 + 3 * 8
    zero = per_gpu(RUN, Placement(1, "zero2"), 2)
    assert (zero.gradients, zero.optimizer) == (2 * trained, 8 * trained + 3 * 4 + 4 * trained)


def test_ddp_and_zero_by_hand():
    assert per_gpu(RUN, Placement(1, "fsdp2"), 2) == RUN.usage
    ddp = per_gpu(RUN, Placement(4, "ddp"), 2)
    assert ddp.total == RUN.usage.total + RUN.usage.gradients
    floating, trained = 10 * 8 + 6 * 8 + 2 * 5 * 8 + 3 * 8, 2 * 5 * 8 + 3 * 8
    zero2 = per_gpu(RUN, Placement(4, "zero2"), 2)
    assert zero2.weights == 2 * floating + 100
    assert zero2.gradients == 2 * trained / 4
    # Moments of the shards, whose rows are rounded up, and their masters.
    assert zero2.optimizer == 8 * 8 * (2 + 2 + 1) + 3 * 4 + 4 * trained / 4
    assert zero2.gathered == 2 * 2 * trained
    zero3 = per_gpu(RUN, Placement(4, "zero3"), 2)
    assert zero3.weights == 2 * floating / 4 + 100
    assert zero3.reference == 2 * 7 * 8 / 4
    assert (zero3.gradients, zero3.optimizer) == (zero2.gradients, zero2.optimizer)


FSDP = {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_reshard_after_forward": True}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"distributed_type": "NO"}, Placement(1)),
        ({"distributed_type": "MULTI_GPU", "num_processes": 8}, Placement(8)),
        ({"distributed_type": "FSDP", "num_processes": 8, "fsdp_config": FSDP}, Placement(8, "fsdp2")),
        (
            {"distributed_type": "FSDP", "num_processes": 16, "fsdp_config": {**FSDP, "fsdp_offload_params": True}},
            Placement(16, "fsdp2", offloads=True),
        ),
        (
            {"distributed_type": "DEEPSPEED", "num_processes": 4, "deepspeed_config": {"zero_stage": 3}},
            Placement(4, "zero3"),
        ),
    ],
)
def test_accelerate_configurations(values, expected, tmp_path):
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(values))
    assert read_placement(path) == expected
    assert read_placement(path, 2).processes == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"distributed_type": "TPU"}, ["distributed_type is 'TPU'", "FSDP"]),
        (
            {"distributed_type": "FSDP", "fsdp_config": {**FSDP, "fsdp_version": 1}},
            ["fsdp_version is 1", "set it to 2"],
        ),
        ({"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}}, ["fsdp_auto_wrap_policy", "TRANSFORMER"]),
        (
            {"distributed_type": "FSDP", "fsdp_config": {**FSDP, "fsdp_reshard_after_forward": False}},
            ["fsdp_reshard_after_forward is False", "true"],
        ),
        (
            {"distributed_type": "FSDP", "fsdp_config": {**FSDP, "fsdp_activation_checkpointing": True}},
            ["fsdp_activation_checkpointing is True", "leave it out"],
        ),
        (
            {"distributed_type": "FSDP", "fsdp_config": {**FSDP, "fsdp_transformer_layer_cls_to_wrap": "Block"}},
            ["fsdp_transformer_layer_cls_to_wrap is 'Block'", "leave it out"],
        ),
        ({"distributed_type": "FSDP", "fsdp_config": {**FSDP, "fsdp_version": "two"}}, ["fsdp_version is 'two'"]),
        (
            {"distributed_type": "FSDP", "fsdp_config": {**FSDP, "fsdp_offload_params": "false"}},
            ["fsdp_offload_params is 'false'", "without quotes"],
        ),
        ({"distributed_type": "FSDP", "fsdp_config": "fsdp2"}, ["fsdp_config is 'fsdp2'", "indented"]),
        ({"distributed_type": "MULTI_GPU", "num_processes": "all"}, ["num_processes is 'all'", "number of GPUs"]),
        ({"distributed_type": "MULTI_GPU", "num_processes": 0}, ["num_processes is 0"]),
        ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 1}}, ["zero_stage is 1"]),
        (
            {"distributed_type": "DEEPSPEED", "deepspeed_config": {"offload_optimizer_device": "cpu"}},
            ["offload_optimizer_device is 'cpu'"],
        ),
    ],
)
def test_what_is_not_known_is_refused(values, words, tmp_path):
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError) as refused:
        read_placement(path)
    for word in (str(path), "remedy", *words):
        assert word in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_hold_what_is_planned(lora, checkpoints, recipe, tmp_path):
    keys = {
        "model": str(checkpoints("internvl") / "base"),
        "per_device_train_batch_size": 2,
        "lora_r": 3 if lora else None,
    }
    keys |= {"num_selected_patches": 2, "fusion_num_heads": 2}
    plan = plan_memory(recipe(**keys))
    planned = per_gpu(plan.run, Placement(2, "fsdp2"), plan.compute_bytes)
    measured = [_in_two_processes(recipe(**keys), tmp_path, rank) for rank in range(2)]
    for rank, process in enumerate(measured):
        assert os.waitpid(process, 0)[1] == 0, (tmp_path / f"log{rank}").read_text()
    held = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for name in ("weights", "gradients", "optimizer"):
        assert max(one[name] for one in held) == getattr(planned, name), name
    units: dict[str, int] = {}
    for one in plan.run.parameters:
        units[one.unit] = units.get(one.unit, 0) + one.numel
    assert sorted(units.values()) == sorted(held[0]["units"])


def _in_two_processes(recipe, directory: Path, rank: int) -> int:
    """Start one of two processes, which trains a step and writes what it held."""
    process = os.fork()
    if process:
        return process
    try:
        log = os.open(directory / f"log{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 2)
        torch.distributed.init_process_group("gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2)
        (directory / f"rank{rank}.json").write_text(json.dumps(_sharded_step(recipe)))
        torch.distributed.destroy_process_group()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _sharded_step(recipe) -> dict[str, object]:
    """Bytes on this process of a step that accelerate shards as on GPUs, where the CPU would get DDP."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from torch.distributed.fsdp import FSDPModule

    models = build_models(recipe)
    trainer = build_trainer(recipe.training, models, load_rows(recipe, recipe.run.split, PairCounts()), None)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(2)])
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="no",
        is_main_process=True,
        device=torch.device("cpu"),
    )
    model = fsdp2_prepare_model(accelerator, trainer.model)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    trainer.compute_loss(model, batch).backward()
    gradients = [one.grad.to_local() for one in model.parameters() if one.grad is not None]
    optimizer.step()
    states = [value for values in optimizer.state.values() for value in values.values()]
    groups = [
        group
        for module in model.modules()
        if isinstance(module, FSDPModule)
        for group in module._get_fsdp_state()._fsdp_param_groups
    ]
    return {
        "weights": _bytes(one.to_local() for one in model.parameters()),
        "gradients": _bytes(gradients),
        "optimizer": _bytes(value.to_local() if hasattr(value, "to_local") else value for value in states),
        "units": [sum(one._orig_size.numel() for one in group.fsdp_params) for group in groups],
    }


def _bytes(tensors) -> int:
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}.values())
