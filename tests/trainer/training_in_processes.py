"""What one of several processes does for `test_processes.py`: train recipes, then divide models among the processes.

`training_in_processes.py FOLDER RECIPE...` in the environment that a launcher gives each process: each leaves
`process-RANK.json` in FOLDER with the rows of its batches, by recipe, and what `train_after_evaluation` and
`sharded_step` found.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from datasets import Dataset
from rich.console import Console
from torch.nn.utils import parameters_to_vector
from transformers import TrainingArguments

from sage_trl.models.adapters import add_lora
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.recipe import load_recipe
from sage_trl.trainer.collators import EntropyDPOCollator, SFECollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer
from sage_trl.training import run_training
from tests.trainer.test_shared_prefix import COMMON, group


def record_batches(seen: list[list[str]]) -> None:
    """Note the rows of every batch that a collator makes."""
    for kind in (SFECollator, EntropyDPOCollator):
        collate = kind.__call__

        def recorded(self, rows, collate=collate):
            seen.append([f"{row['group_id']}/{row['question_id']}{'*' * ('is_filler' in row)}" for row in rows])
            return collate(self, rows)

        kind.__call__ = recorded


def rows_of(process: int) -> list[dict]:
    """Unequal trees; the second process has no reference at all, and fewer pairs."""
    rows = [*group(0, 3), *group(2, 1)] if process == 0 else group(1, 2, pairs=1, reference=False)
    return [{**row, "completion": row["chosen"]} for row in rows]


def load(checkpoint: Path, stage: str, output: Path, *, by_one: bool = False) -> SFETrainer | EntropyDPOTrainer:
    """A trainer of a model that both processes have read, or the first alone (`fsdp_cpu_ram_efficient_loading`)."""
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"} if by_one else {}
    with patch.dict(os.environ, fsdp):
        settings = {"num_selected_patches": 2, "fusion_num_heads": 4}
        model, processor = load_pretrained(checkpoint, fusion=settings, seed=5)
    rows = Dataset.from_list(rows_of(dist.get_rank()))
    shared = {"train_dataset": rows, "processing_class": processor}
    options = {**COMMON, "reference_dropout": 0.0}
    # With FSDP the `Trainer` leaves the model where it is.
    with patch.object(TrainingArguments, "place_model_on_device", not by_one):
        if stage == "sfe":
            parts = ["vision_encoder", "projector", "fusion", "language_model"]
            trainer = SFETrainer(model, SFEConfig(str(output), train_parts=parts, **options), **shared)
        else:
            torch.manual_seed(3)
            model = add_lora(model, ["projector", "language_model"], r=2)
            trainer = EntropyDPOTrainer(model, None, EntropyDPOConfig(str(output), eta=2.0, **options), **shared)
            # A new adapter changes nothing: without this the reference would be the policy.
            torch.manual_seed(4)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B.default" in name:
                        parameter.normal_(std=0.05)
    trainer.model.train()
    trainer.is_fsdp_enabled = True
    trainer.prepare_sharding()
    return trainer


def step(trainer: SFETrainer | EntropyDPOTrainer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    items = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=items)
    loss.backward()
    return loss.detach()


def train_after_evaluation(checkpoint: Path, output: Path) -> dict[str, float]:
    """How far two steps move the weights after an evaluation of decoded images, and how far processes then differ."""
    model, processor = load_pretrained(checkpoint, fusion={"num_selected_patches": 2, "fusion_num_heads": 4}, seed=5)
    rows = Dataset.from_list([*rows_of(0), *rows_of(1)])
    args = SFEConfig(str(output), max_steps=2, learning_rate=1e-2, **COMMON)
    trainer = SFETrainer(model, args, train_dataset=rows, processing_class=processor)
    before = parameters_to_vector(model.parameters()).detach()
    trainer.evaluate(rows)
    trainer.train()
    after = parameters_to_vector(model.parameters()).detach()
    of_first = after.clone()
    dist.broadcast(of_first, 0)
    return {"moved": (after - before).abs().max().item(), "apart": (after - of_first).abs().max().item()}


def sharded_step(checkpoint: Path, stage: str, output: Path) -> dict[str, float]:
    """How far loss and gradients with FSDP2, as accelerate wraps it, are from those of the whole model.

    The whole model's gradients are the mean over the processes. Once both processes have read the weights, and once the
    first alone. All is done twice, because a wrapped model is another after its first step.
    """
    trainer = load(checkpoint, stage, output)
    batch = trainer.data_collator(rows_of(dist.get_rank()))
    assert "reference_pixel_values" in batch
    whole = step(trainer, batch)
    expected = {}
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            expected[name] = parameter.grad.clone() if parameter.grad is not None else torch.zeros_like(parameter)
            dist.all_reduce(expected[name])
            expected[name] /= dist.get_world_size()
    trainer.model.zero_grad()
    found = {"loss": 0.0, "gradient": 0.0, "largest gradient": max(g.abs().max().item() for g in expected.values())}
    for by_one in (False, True):
        if by_one:
            trainer = load(checkpoint, stage, output, by_one=True)
            assert any(parameter.is_meta for parameter in trainer.model.parameters()) is (dist.get_rank() == 1)
        wrap(trainer.model, by_one=by_one)
        found["layers"] = sum("FSDP" in type(part).__name__ for part in trainer.model.modules())
        for _ in range(2):
            found["loss"] = max(found["loss"], (step(trainer, batch) - whole).abs().item())
            for name, parameter in trainer.model.named_parameters():
                if parameter.requires_grad:
                    gradient = 0 * expected[name] if parameter.grad is None else parameter.grad.full_tensor()
                    found["gradient"] = max(found["gradient"], (gradient - expected[name]).abs().max().item())
            trainer.model.zero_grad()
    return found


def wrap(model: torch.nn.Module, *, by_one: bool) -> None:
    """What accelerate does on a GPU; on the CPU it leaves FSDP out without a word."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP", cpu_ram_efficient_loading=by_one
    )
    stand_in = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="no",
        is_main_process=dist.get_rank() == 0,
        device=torch.device("cpu"),
    )
    fsdp2_prepare_model(stand_in, model)


def main() -> None:
    folder, *recipes = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    report: dict[str, object] = {}
    for path in recipes:
        seen: list[list[str]] = []
        record_batches(seen)
        run_training(load_recipe(path), Console(stderr=True))
        report[path.stem] = list(seen)
    for checkpoint in sorted(folder.glob("stock-*")):
        report[f"{checkpoint.name} evaluated"] = train_after_evaluation(checkpoint, folder / "evaluated")
        for stage in ("sfe", "edpo"):
            report[f"{checkpoint.name} {stage}"] = sharded_step(checkpoint, stage, folder / "sharded")
    (folder / f"process-{state.process_index}.json").write_text(json.dumps(report))
    state.destroy_process_group()


if __name__ == "__main__":
    main()
