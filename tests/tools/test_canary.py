"""Tokens of the environment reach no file: judged, trained, evaluated and published with planted ones in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.llm_client.conftest import serve
from tests.publishing import hub_server
from tests.publishing.conftest import hub, hub_environment
from tests.tools.judging import PRICES
from tests.tools.test_train import write_recipe
from tests.warm import run_warm

__all__ = ["hub", "serve"]
CANARIES = {
    "OPENAI_API_KEY": "sk-canary-of-openai-0123456789",
    "HF_TOKEN": "hf_canaryofthehub0123456789",
    "WANDB_API_KEY": "canary-of-wandb-0123456789",
    "LINE_SEVEN_TOKEN": "canary-of-line-seven-0123456789",
}


def holding(*folders: Path) -> Iterator[str]:
    """Files that hold a canary."""
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        yield from (f"{path}: {name}" for name, value in CANARIES.items() if value.encode() in content)


@pytest.mark.slow
def test_planted_tokens_are_in_no_checkpoint_log_card_or_cache(
    ad_pl: Path, hub, serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hub_server, "TOKEN", CANARIES["HF_TOKEN"])
    server = serve("--says", CANARIES["OPENAI_API_KEY"])  # a server that repeats the key in its answers
    judge = ("--judge", "openai", "--base-url", server.url, "--yes", *PRICES)
    output, evaluation = tmp_path / "run", tmp_path / "evaluation"
    recipe = write_recipe(tmp_path / "recipe.yaml", ad_pl, output, split="test", max_steps=2, save_steps=1)
    evaluated = ("--model", output, "--dataset", ad_pl, "--setting", "one_shot", "--limit", 1, "--max-new-tokens", 4)
    steps = [
        ("score_mle.py", "--dataset", ad_pl, *judge),
        ("train.py", recipe),
        ("evaluate.py", *evaluated, "--output", evaluation, *judge, "--cache", tmp_path / "judge.sqlite"),
        ("publish.py", output, "--repo-id", "me/canary", "--metrics", evaluation / "metrics.json"),
    ]
    for tool, *arguments in steps:
        command = [sys.executable, REPOSITORY / "tools" / tool, *map(str, arguments)]
        is_sent = tool == "publish.py"
        result = run_warm(
            command, cwd=tmp_path, env=hub_environment(hub.url, tmp_path, **CANARIES) if is_sent else None
        )
        assert result.returncode == 0, result.stderr
        (tmp_path / f"{tool}.log").write_text(result.stdout + result.stderr, encoding="utf-8")
    # The tokens opened the doors that they are for.
    assert sum(server.stats()["received"].values()) > 0
    published = hub.repositories["me/canary"].files
    assert {"README.md", "model.safetensors", "sage_run.json"} <= set(published)
    for name, content in published.items():
        (tmp_path / f"published-{name}").write_bytes(content)
    assert (output / "checkpoint-2" / "training_args.bin").is_file()

    assert list(holding(tmp_path)) == []
    (tmp_path / "probe").write_text(f"token={CANARIES['LINE_SEVEN_TOKEN']}")
    assert list(holding(tmp_path)) == [f"{tmp_path / 'probe'}: LINE_SEVEN_TOKEN"]
