"""What each of several GPUs holds, counted from one GPU that holds all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sage_trl.errors import RecipeError
from sage_trl.planning.dry_run import DryRun, Usage
from sage_trl.planning.parameters import HEAD, ROOT, ParameterShape
from sage_trl.recipe import read_yaml

Sharding = Literal["ddp", "zero2", "zero3", "fsdp2"]
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
# Where a GPU is in the use of gathered layers: the one that computes, what the next is gathered into, and what the one
# before was, which FSDP2 frees a layer later. The backward frees it at once.
LAYERS_IN_FORWARD = 3
LAYERS_IN_BACKWARD = 2
# A gradient that a layer computes, and the buffer it is reduced from.
GRADIENT_COPIES = 2
# What FSDP2 gathers, and what it is copied to.
GATHERED_COPIES = 2
MASTER_BYTES = 4
# DeepSpeed's own defaults, in elements; accelerate's configuration files do not set them.
ZERO_REDUCE_BUCKET = 500_000_000
ZERO_GATHER_BUCKET = 500_000_000
ZERO3_LIVE_PARAMETERS = 1_000_000_000
ZERO3_PREFETCH_BUCKET = 50_000_000


@dataclass(frozen=True)
class Placement:
    """How training is spread over GPUs.

    Attributes:
        processes: number of GPUs.
        sharding: how they share; `ddp` shares nothing.
        offloads: weights, gradients and optimizer state lie in the host's memory (FSDP2).
    """

    processes: int = 1
    sharding: Sharding = "ddp"
    offloads: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether the one GPU holds what it would hold without a launcher."""
        return self.processes == 1 and self.sharding in ("ddp", "fsdp2") and not self.offloads


def read_placement(path: Path, processes: int | None = None) -> Placement:
    """Read a configuration file of `accelerate launch`.

    Args:
        path: the file.
        processes: number of GPUs in place of the file's `num_processes`.

    Raises:
        RecipeError: no such file, or a setting whose memory is not known here; names the key and the remedy.
    """
    values = read_yaml(path, "accelerate configuration")
    kind = str(values.get("distributed_type", "NO"))
    count = processes or _read_count(path, values.get("num_processes", 1))
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        return Placement(count)
    if kind == "FSDP":
        return Placement(count, "fsdp2", offloads=_read_fsdp(path, _read_section(path, values, "fsdp_config")))
    if kind == "DEEPSPEED":
        return Placement(count, _read_zero(path, _read_section(path, values, "deepspeed_config")))
    raise _unknown(path, "distributed_type", kind, "use NO, MULTI_GPU, FSDP or DEEPSPEED")


def _read_count(path: Path, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RecipeError(f"{path}: num_processes is {value!r}\n  remedy: set it to the number of GPUs")
    return value


def _read_section(path: Path, values: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = values.get(key) or {}
    if not isinstance(section, dict):
        raise RecipeError(f"{path}: {key} is {section!r}\n  remedy: write its keys and values indented below it")
    return section


def _read_fsdp(path: Path, values: dict[str, Any]) -> bool:
    """Whether it offloads."""
    if str(values.get("fsdp_version", 1)) != "2":
        raise _unknown(path, "fsdp_config.fsdp_version", values.get("fsdp_version"), "set it to 2")
    policy = values.get("fsdp_auto_wrap_policy")
    if policy != "TRANSFORMER_BASED_WRAP":
        raise _unknown(path, "fsdp_config.fsdp_auto_wrap_policy", policy, "set it to TRANSFORMER_BASED_WRAP")
    reshards = values.get("fsdp_reshard_after_forward", True)
    if reshards is not True:
        raise _unknown(path, "fsdp_config.fsdp_reshard_after_forward", reshards, "set it to true")
    for key in ("fsdp_transformer_layer_cls_to_wrap", "fsdp_activation_checkpointing"):
        if values.get(key):
            raise _unknown(path, f"fsdp_config.{key}", values[key], "leave it out for a plan")
    offloads = values.get("fsdp_offload_params", False)
    if not isinstance(offloads, bool):
        raise _unknown(path, "fsdp_config.fsdp_offload_params", offloads, "write true or false without quotes")
    return offloads


def _read_zero(path: Path, values: dict[str, Any]) -> Sharding:
    for key in ("deepspeed_config_file", "offload_optimizer_device", "offload_param_device"):
        if values.get(key) not in (None, "none"):
            raise _unknown(path, f"deepspeed_config.{key}", values[key], "leave it out for a plan")
    stage = values.get("zero_stage", 2)
    if stage not in (2, 3):
        raise _unknown(path, "deepspeed_config.zero_stage", stage, "set it to 2 or 3")
    return "zero2" if stage == 2 else "zero3"


def _unknown(path: Path, key: str, value: Any, remedy: str) -> RecipeError:
    return RecipeError(f"{path}: {key} is {value!r}: its memory is not known to the plan\n  remedy: {remedy}")


def per_gpu(run: DryRun, placement: Placement, compute_bytes: int) -> Usage:
    """Bytes on the GPU that holds most.

    Args:
        run: the step on one GPU that holds all.
        placement: how it is spread.
        compute_bytes: of a weight that takes part in a product: 2 with bf16 or fp16, else 4.
    """
    if placement.changes_nothing:
        return run.usage
    kinds: dict[Sharding, Callable[[DryRun, int, int], Usage]]
    kinds = {"ddp": _ddp, "zero2": _zero2, "zero3": _zero3, "fsdp2": _fsdp2}
    usage = kinds[placement.sharding](run, placement.processes, compute_bytes)
    if placement.offloads:
        # What is packed stays where it computes.
        packed = [sum(one.bytes for one in which if one.is_packed) for which in (run.parameters, run.reference)]
        usage = dataclasses.replace(usage, weights=packed[0], reference=packed[1], gradients=0, optimizer=0)
    return usage


def _ddp(run: DryRun, _processes: int, _compute_bytes: int) -> Usage:
    """All on each, and buckets as large as the gradients."""
    return dataclasses.replace(run.usage, gathered=run.usage.gradients)


def _fsdp2(run: DryRun, processes: int, compute_bytes: int) -> Usage:
    """As accelerate and TRL shard: layers, embeddings, head and rest of the policy, and the reference as a whole."""

    def gathered(parameters: Iterable[ParameterShape]) -> int:
        kept = [one for one in parameters if not one.is_packed]
        return sum(one.local(processes) * processes * min(one.itemsize, compute_bytes) for one in kept)

    # The embeddings can train without the layers, and are gathered and reduced as one.
    units = {name: [one for one in run.parameters if one.unit == name] for name in {one.unit for one in run.parameters}}
    layers = [unit for name, unit in units.items() if name not in (ROOT, HEAD)]
    largest = max(map(gathered, layers), default=0)
    trained = max((gathered(one for one in unit if one.trains) for unit in layers), default=0)
    # Root and head stay gathered until the backward is through them, the root's gradients until its end.
    root, head = units.get(ROOT, []), units.get(HEAD, [])
    always = gathered(root) + gathered(head) + gathered(one for one in root if one.trains)
    step = max(LAYERS_IN_FORWARD * largest, LAYERS_IN_BACKWARD * largest + GRADIENT_COPIES * trained)
    return dataclasses.replace(
        run.usage,
        weights=sum(one.local(processes) * one.itemsize for one in run.parameters),
        reference=sum(one.local(processes) * one.itemsize for one in run.reference),
        gradients=sum(one.local(processes) * one.itemsize for one in run.parameters if one.trains),
        optimizer=_optimizer(run.parameters, processes),
        # Gathered weights are of the computing type already.
        recomputed=run.usage.recomputed - run.recomputed_copies,
        weight_copies=0,
        gathered=max(always + step, gathered(root) + gathered(head) + GATHERED_COPIES * gathered(run.reference)),
    )


def _zero2(run: DryRun, processes: int, compute_bytes: int) -> Usage:
    """Weights in the computing type on each; fp32 masters, optimizer state and gradients divided."""
    trained = _trained(run)
    buckets = min(trained, ZERO_REDUCE_BUCKET) + min(trained, ZERO_GATHER_BUCKET)
    return dataclasses.replace(
        run.usage,
        weights=sum(_cast_bytes(one, compute_bytes) for one in run.parameters),
        reference=sum(_cast_bytes(one, compute_bytes) for one in run.reference),
        gradients=math.ceil(trained / processes) * compute_bytes,
        optimizer=_optimizer(run.parameters, processes) + math.ceil(trained / processes) * MASTER_BYTES,
        recomputed=run.usage.recomputed - run.recomputed_copies,
        weight_copies=0,
        gathered=buckets * compute_bytes,
    )


def _zero3(run: DryRun, processes: int, compute_bytes: int) -> Usage:
    """As ZeRO-2, the weights divided too, of which up to `ZERO3_LIVE_PARAMETERS` elements are gathered at a time."""
    trained, held = _trained(run), sum(one.numel for one in (*run.parameters, *run.reference) if not one.is_packed)
    live = min(held, ZERO3_LIVE_PARAMETERS) + min(held, ZERO3_PREFETCH_BUCKET) + min(trained, ZERO_REDUCE_BUCKET)

    def divided(parameters: Sequence[ParameterShape]) -> int:
        packed = sum(one.bytes for one in parameters if one.is_packed)
        floating = sum(_cast_bytes(one, compute_bytes) for one in parameters if not one.is_packed)
        return packed + math.ceil(floating / processes)

    return dataclasses.replace(
        _zero2(run, processes, compute_bytes),
        weights=divided(run.parameters),
        reference=divided(run.reference),
        gathered=live * compute_bytes,
    )


def _trained(run: DryRun) -> int:
    return sum(one.numel for one in run.parameters if one.trains)


def _cast_bytes(parameter: ParameterShape, compute_bytes: int) -> int:
    return parameter.bytes if parameter.is_packed else parameter.numel * compute_bytes


def _optimizer(parameters: Iterable[ParameterShape], processes: int) -> int:
    return sum(one.local(processes) * one.state_per_element + one.state_apart for one in parameters)
