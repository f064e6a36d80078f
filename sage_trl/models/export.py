"""Models for elsewhere: an adapter merged into its base, and the plain model without the fusion."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.utils import cached_file

from sage_trl.errors import DataError
from sage_trl.models.adapters import is_adapted
from sage_trl.models.backbones import BY_MODEL_TYPE
from sage_trl.models.backbones.registry import Backbone
from sage_trl.models.checkpoints import FUSION_PREFIX, load_pretrained, save_pretrained
from sage_trl.models.fusion_settings import FUSION_SETTINGS
from sage_trl.storage import atomic_directory, read_json, write_json

# What training notes beside a model and a merged one keeps.
NOTES = ("sage_inference.json", "sage_run.json")


def merge_adapter(run: str | Path, output: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the model that an adapter makes of its base, as a whole model of ours.

    An adapter trained on a 4-bit base is merged into the unquantised weights.

    Args:
        run: adapter directory or hub id.
        output: a new or empty directory.
        dtype: type of the weights written.

    Raises:
        DataError: `run` is no adapter, cannot be loaded, or `output` is not empty.
    """
    with atomic_directory(output) as directory:
        model, processor = load_pretrained(run, dtype=dtype)
        if not is_adapted(model):
            problem = "this is a whole model, not an adapter"
            raise DataError.at(str(run), None, problem, "use it as it is, or add --plain")
        save_pretrained(model.merge_and_unload(), processor, directory)
        _copy_notes(str(run), directory)


def export_plain(run: str | Path, output: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a trained model, adapters merged, as a model of the base's own class, which stock transformers loads.

    The fusion stays behind, so facts and references have no effect on it. The processor is written for images alone.

    Args:
        run: directory or hub id of a model or an adapter of ours.
        output: a new or empty directory.
        dtype: type of the weights written.

    Raises:
        DataError: `run` cannot be loaded, or `output` is not empty.
    """
    with atomic_directory(output) as directory:
        model, processor = load_pretrained(run, dtype=dtype)
        if is_adapted(model):
            model = model.merge_and_unload()
        backbone = BY_MODEL_TYPE[model.config.model_type]
        plain_model(model, backbone).save_pretrained(directory)
        processor.save_pretrained(directory)
        _name_stock_processor(directory, backbone)


def plain_model(model: Any, backbone: Backbone) -> Any:
    """The base's own model on the same tensors, without the fusion."""
    ours = {*FUSION_SETTINGS, "fact_token_id", "model_type", "architectures"}
    config = backbone.base_config(**{key: value for key, value in model.config.to_dict().items() if key not in ours})
    with torch.device("meta"):
        plain = backbone.base_model(config)
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith(FUSION_PREFIX)}
    plain.load_state_dict(tensors, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain.eval()


def _name_stock_processor(directory: Path, backbone: Backbone) -> None:
    stock = next(base for base in backbone.processor.__mro__ if base.__module__.startswith("transformers."))
    for path in directory.glob("*.json"):
        settings = read_json(path)
        if isinstance(settings, dict) and settings.get("processor_class") == backbone.processor.__name__:
            settings["processor_class"] = stock.__name__
            write_json(path, settings)


def _copy_notes(run: str, output: Path) -> None:
    for name in NOTES:
        found = cached_file(run, name, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            shutil.copyfile(found, output / name)
