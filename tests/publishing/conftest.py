"""Fixtures: a hub on this machine, a finished run, and the tool as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_trl.run_record import PartParameters, RunRecord, TrainingData, TrainingSettings, write_run_record
from sage_trl.storage import write_json
from tests.conftest import REPOSITORY
from tests.publishing.hub_server import TOKEN, FakeHub, place, running_hub
from tests.warm import expect_many, run_warm

TOOL = REPOSITORY / "tools" / "publish.py"
# huggingface_hub waits up to 23 seconds between its tries.
WITHOUT_WAITING = (
    "import runpy, sys, time; sleep = time.sleep; time.sleep = lambda seconds: sleep(min(seconds, 0.01)); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
Publish = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """An empty hub."""
    with running_hub() as server:
        yield server


def hub_environment(url: str, home: Path | None = None, **changes: str | None) -> dict[str, str]:
    """An environment in which `url` is the hub, and nothing is known from this machine's own.

    What the hub's libraries keep is in `home`. Without one it is in a folder that is new for each hub, and `run_warm`
    has the libraries loaded, which is not for tools that set `HF_*` variables themselves before they load them.
    """
    without = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET")
    kept = {name: value for name, value in os.environ.items() if name not in without and "proxy" not in name.lower()}
    # Trainings in this process set them.
    kept = {name: value for name, value in kept.items() if not name.startswith("ACCELERATE_")}
    ours = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(home / "hf_home" if home else place().home)}
    ours |= {"PYTHONPATH": str(REPOSITORY), "HF_HUB_DISABLE_TELEMETRY": "1"}
    if home is None:
        expect_many({**kept, **ours, "HF_ENDPOINT": place().url})
    return {name: value for name, value in {**kept, **ours, **changes}.items() if value is not None}


@pytest.fixture
def publish(hub: FakeHub, tmp_path: Path) -> Publish:
    """Runs `tools/publish.py` against the hub, in `tmp_path`; keywords change its environment, None unsets."""

    def run(*arguments: object, url: str = "", **changes: str | None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_WAITING, TOOL, *map(str, arguments)]
        return run_warm(command, cwd=tmp_path, env=hub_environment(url or hub.url, tmp_path, **changes))

    return run


def run_record(stage: str = "sfe", **changes: object) -> RunRecord:
    """A record with round numbers."""
    stage_2 = stage in ("dpo", "edpo")
    method = {"facts": "fusion", "patch_similarity": "nearest", "fusion_keys": "patch", "fusion_values": "difference"}
    if stage_2:
        method |= {"pairs": "both", "entropy": "term", "objective": "dpo", "beta": 0.1, "eta": 0.5, "kl_coef": 0.2}
    values = {
        "stage": stage,
        "model": "acme/base-vlm",
        "base_model": "acme/base-vlm",
        "base_revision": "0123456789abcdef",
        "recipe": {"stage": stage, "learning_rate": 2e-6},
        "method": method,
        "training": TrainingSettings(
            rows_per_step=32,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            processes=4,
            steps=270,
            epochs=2.0,
            learning_rate=2e-6,
            lr_scheduler="linear",
            warmup_steps=27,
            optimizer="adamw_torch",
            max_grad_norm=1.0,
            dtype="float32 under bf16 autocast",
            seed=42,
        ),
        "data": TrainingData(
            name="plates",
            licence="CC-BY-4.0",
            sources={"plates": "CC-BY-4.0"},
            sha256="ab" * 32,
            split="train",
            rows=1234,
            judges=("rule",) if stage_2 else (),
            facts_by=("template-bank",),
        ),
        "parts": (PartParameters(part="fusion", parameters=1_000_000, trainable=1_000_000),),
        "versions": {"python": "3.11.9", "torch": "2.13.0", "trl": "1.16.0"},
    }
    return RunRecord(**{**values, **changes})


@pytest.fixture
def finished_run(tiny, tmp_path: Path) -> Path:
    """A run directory as training leaves it, with everything beside the model that must stay at home."""
    model, processor = tiny
    directory = tmp_path / "runs" / "sfe"
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    write_json(directory / "sage_inference.json", {"facts": "fusion", "reference_in_prompt": False, "stage": "sfe"})
    write_run_record(directory, run_record())
    for name in (
        "training_args.bin",
        "trainer_state.json",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "train.log",
    ):
        (directory / name).write_bytes(b"stays at home")
    (directory / "optimizer.safetensors").write_bytes(b"stays at home")
    (directory / "README.md").write_text("the Trainer's draft")
    for name in ("checkpoint-3", "runs", ".cache"):
        (directory / name).mkdir()
        (directory / name / "model.safetensors").write_bytes(b"stays at home")
    return directory
