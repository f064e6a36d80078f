"""What every tool that asks a language model has in common: its options, its cache file, and the user's consent."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sage_trl.errors import SageError
from sage_trl.llm_client.client import OPENAI_URL
from sage_trl.llm_client.cost import BATCH_DISCOUNT, NANO, Prices, dollars, find_prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import RunSettings
from sage_trl.llm_client.request import without_credentials


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """A server, a model, and the limits of time and money, as the tools' command lines give them."""

    model: str
    base_url: str
    cache: Path
    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_cost: float | None = None
    price_input: float | None = None
    price_output: float | None = None
    seconds: float = 120.0
    batch: bool = False
    dry_run: bool = False
    yes: bool = False
    retry_quarantined: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse a model without a name.

        Raises:
            SageError: it has none.
        """
        if not self.model.strip():
            raise SageError("the model has no name\n  remedy: name it as the server does, such as gpt-4o")

    def prices(self) -> Prices:
        """USD per million tokens.

        Raises:
            SageError: a cap without prices would hold nothing.
        """
        is_openai = without_credentials(self.base_url) == OPENAI_URL
        prices = find_prices(self.model, is_openai, self.price_input, self.price_output)
        if self.max_cost is not None and prices.worst_rate() == 0:
            raise SageError(
                f"--max-cost {self.max_cost:g}: the price of {self.model!r} is unknown\n"
                "  remedy: give --price-input and --price-output in USD per million tokens"
            )
        return prices.scaled(BATCH_DISCOUNT) if self.batch else prices

    def settings(self, parser: str) -> RunSettings:
        """For the client; `parser` names who reads the answers, and its version."""
        return RunSettings(
            base_url=self.base_url,
            parser=parser,
            prices=self.prices(),
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_cost=None if self.max_cost is None else int(self.max_cost * NANO),
            seconds=self.seconds,
            retry_quarantined=self.retry_quarantined,
            quiet=self.quiet,
        )


@contextmanager
def open_ledger(options: ServiceOptions) -> Iterator[Ledger]:
    """The cache file; a dry run makes none."""
    if options.dry_run and not options.cache.exists():
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "empty.sqlite") as ledger:
            yield ledger
        return
    with Ledger(options.cache) as ledger:
        yield ledger


def show_cost(expected: int, worst: int, spent: int, prices: Prices, console: Console) -> None:
    """What a run may cost, in nano-dollars, beside what the ledger counts already."""
    if prices.worst_rate() == 0:
        console.print("cost: unknown; give --price-input and --price-output in USD per million tokens", soft_wrap=True)
        return
    console.print(
        f"cost: about {dollars(expected)}, at most {dollars(worst)} if each is asked once; "
        f"spent before: {dollars(spent)}",
        soft_wrap=True,
    )


def ask_to_send() -> None:
    """Let the user decide.

    Raises:
        SageError: nobody is there, or does not want it.
    """
    if not sys.stdin.isatty():
        raise SageError("nobody is there to be asked\n  remedy: give --yes to send, or --dry-run to see the cost only")
    sys.stderr.write("send? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SageError("nothing was sent\n  remedy: answer y, or give --yes")
