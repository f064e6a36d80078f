"""The command-line options of tools that ask a language model. Imports no client, which takes long to load."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sage_trl.command_line import positive_number

if TYPE_CHECKING:
    from sage_trl.llm_client.service import ServiceOptions


SERVED = "openai:"
"""What stands before the name of a model behind a server where others are directories or hub ids."""


def add_service_options(parser: argparse.ArgumentParser, title: str, cache: str) -> None:
    """Add server, cache file and limits under a title; `cache` names the default of the cache file.

    `--dry-run` is for the tool to add: some have one already.
    """
    group = parser.add_argument_group(title)
    group.add_argument("--base-url", metavar="URL", help="of the API; default OPENAI_BASE_URL, or OpenAI's")
    group.add_argument("--cache", type=Path, metavar="FILE", help=f"cache and ledger; default {cache}")
    group.add_argument("--concurrency", type=positive_number, default=16, metavar="N", help="default 16")
    group.add_argument("--requests-per-minute", type=positive_number, metavar="N", help="as the service allows you")
    group.add_argument("--tokens-per-minute", type=positive_number, metavar="N", help="as the service allows you")
    group.add_argument("--timeout", type=amount, default=120.0, metavar="SECONDS", help="of a call; default 120")
    group.add_argument("--max-cost", type=amount, metavar="USD", help="never exceeded, earlier runs included")
    group.add_argument("--price-input", type=amount, metavar="USD", help="per million tokens")
    group.add_argument("--price-output", type=amount, metavar="USD", help="per million tokens")
    group.add_argument("--retry-quarantined", action="store_true", help="ask what is in quarantine again")
    group.add_argument("--yes", action="store_true", help="send without asking")


def service_options(arguments: argparse.Namespace, model: str, cache: Path) -> ServiceOptions:
    """What `add_service_options` read; `cache` is the default of the cache file."""
    from sage_trl.llm_client.client import OPENAI_URL  # noqa: PLC0415
    from sage_trl.llm_client.service import ServiceOptions  # noqa: PLC0415

    return ServiceOptions(
        model=model,
        base_url=arguments.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,
        cache=arguments.cache or cache,
        concurrency=arguments.concurrency,
        requests_per_minute=arguments.requests_per_minute,
        tokens_per_minute=arguments.tokens_per_minute,
        max_cost=arguments.max_cost,
        price_input=arguments.price_input,
        price_output=arguments.price_output,
        seconds=arguments.timeout,
        dry_run=arguments.dry_run,
        yes=arguments.yes,
        retry_quarantined=arguments.retry_quarantined,
        quiet=arguments.quiet,
    )


def amount(text: str) -> float:
    """The type of seconds and of money for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive amount")
    return value
