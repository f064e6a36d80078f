"""Facts by a served model: blind to names, in whole batches, resumable, and never padded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.data.fact_sets import read_facts
from sage_trl.facts.language_model import LanguageModelWriter, parse_facts
from sage_trl.facts.writer import Part
from sage_trl.llm_client.replies import UnreadableError
from sage_trl.llm_client.service import ServiceOptions
from tests.llm_client.conftest import Served, serve
from tests.tools.conftest import run_tool_file

__all__ = ["run_tool_file", "serve"]
Serve, Run = Callable[..., Served], Callable[..., int]
PRICES = ("--price-input", "2.5", "--price-output", "10")


def command(parts: AdPlDirectory, server: Served, *options: str) -> tuple[str, ...]:
    fixed = ("--dataset", str(parts.root), "--model", "openai:gpt-4o", "--base-url", server.url, "--timeout", "1")
    return ("generate_facts.py", *fixed, *PRICES, "--batch-size", "2", "--num-facts", "6", "--quiet", *options)


def requests(server: Served) -> int:
    return sum(server.stats()["received"].values())


@pytest.mark.parametrize("reply", ["x", "[]", '{"sentences": "a"}', '{"sentences": [1]}', '{"sentences": ["Why?"]}'])
def test_replies_without_sentences_are_unreadable(reply: str) -> None:
    with pytest.raises(UnreadableError):
        parse_facts(reply)


def test_sentences_are_cleaned() -> None:
    reply = {"sentences": ["Rust weakens\nthe part.", "Which part?", "1. Dents are common"]}
    assert parse_facts(json.dumps(reply)) == ["Rust weakens the part.", "Dents are common."]


def test_nothing_but_the_picture_is_sent(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    options = ServiceOptions(model="gpt-4o", base_url=server.url, cache=tmp_path / "c.sqlite")
    writer = LanguageModelWriter(options, count=6, batch_size=2, max_tokens=500)
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    [one, other] = writer.write([Part("plate", picture), Part("gear", picture)])
    assert one == other and len(one) == 6
    assert requests(server) == len(writer.prompts), "equal requests are sent once"


def test_the_tool(parts: AdPlDirectory, serve: Serve, run_tool_file: Run, capsys: pytest.CaptureFixture[str]) -> None:
    server = serve()
    assert run_tool_file(*command(parts, server, "--dry-run")) == 0
    assert run_tool_file(*command(parts, server)) == 2
    assert "nobody is there to be asked" in capsys.readouterr().err and requests(server) == 0
    assert run_tool_file(*command(parts, server, "--yes")) == 0
    facts = read_facts(parts.root / "facts.jsonl")
    assert len(facts) == 5 and all(len(row.facts) == len(set(row.facts)) == 6 for row in facts.values())
    assert {row.model for row in facts.values()} == {"openai:gpt-4o"}
    assert requests(server) == 5 * 3


def test_a_cap_stops_it_and_a_resumed_run_ends_with_the_same_bytes(
    parts: AdPlDirectory, serve: Serve, run_tool_file: Run
) -> None:
    server, path = serve(), parts.root / "facts.jsonl"
    assert run_tool_file(*command(parts, server, "--yes", "--max-cost", "0.015")) == 4
    sent = requests(server)
    assert 0 < sent < 15
    assert run_tool_file(*command(parts, server, "--yes", "--max-cost", "9")) == 0
    assert requests(server) == 15, "nothing was asked twice"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3])[:-20])  # killed in the middle of a line
    assert run_tool_file(*command(parts, server, "--yes")) == 0
    assert path.read_bytes() == whole and requests(server) == 15, "all was in the cache"


def test_images_without_readable_answers_are_listed_and_not_filled_in(
    parts: AdPlDirectory, serve: Serve, run_tool_file: Run
) -> None:
    assert run_tool_file(*command(parts, serve("--says", "no facts"), "--yes")) == 3
    listed = [json.loads(line) for line in (parts.root / "facts.short.jsonl").read_text().splitlines()]
    assert len(listed) == 5 and {row["facts"] for row in listed} == {0}
    assert read_facts(parts.root / "facts.jsonl") == {}
    good = serve()
    assert run_tool_file(*command(parts, good, "--yes", "--cache", str(parts.root / "other.sqlite"))) == 0
    assert len(read_facts(parts.root / "facts.jsonl")) == 5
