"""The fingerprint that tells two saved models apart."""

from __future__ import annotations

from pathlib import Path

from sage_trl.storage import content_key, file_sha256, read_json

_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")
# Written beside the weights while training; they differ between runs that end with the same model.
_NOT_THE_MODEL = frozenset(
    {
        *("trainer_state.json", "train_results.json", "all_results.json", "eval_results.json"),
        *("environment.json", "sage_manifest.json"),
    }
)


def model_fingerprint(model: str, revision: str | None = None) -> str:
    """SHA-256 over what decides a model's replies: weights, configuration, tokenizer, chat template.

    An adapter's fingerprint includes that of its base model.

    Args:
        model: a directory, or a hub name.
        revision: the commit that was loaded, which tells a hub model's states apart.
    """
    directory = Path(model)
    if not directory.is_dir():
        return content_key({"hub": model, "revision": revision})
    files = {
        path.name: file_sha256(path)
        for path in sorted(directory.iterdir())
        if path.is_file() and path.suffix in _SUFFIXES and path.name not in _NOT_THE_MODEL
    }
    adapter = directory / "adapter_config.json"
    base = read_json(adapter).get("base_model_name_or_path") if adapter.is_file() else None
    return content_key({"files": files, "base": None if base is None else model_fingerprint(base)})
