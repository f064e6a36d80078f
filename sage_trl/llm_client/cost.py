"""Money, in whole nano-dollars: what requests may cost at worst, what they did cost, and a cap that holds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from sage_trl.errors import SageError
from sage_trl.llm_client.request import ChatRequest

NANO = 1_000_000_000
FINE = 1_000_000  # parts of a nano-dollar, in which prices per token are whole
BATCH_DISCOUNT = 0.5  # the Batch API costs half

# USD per million tokens (input, output), by a model's name with or without a date. Others of its family, such as those
# that search, have fees of their own: a prefix alone tells no price.
KNOWN_PRICES = {"gpt-4o": (2.5, 10.0), "gpt-4o-mini": (0.15, 0.6), "gpt-4o-2024-05-13": (5.0, 15.0)}


class CostCapError(SageError):
    """The next request could exceed the cap; everything that was paid is saved."""

    exit_code = 4


class Usage(NamedTuple):
    """Tokens that a server says it charged."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Prices:
    """USD per million tokens."""

    input: float
    output: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-dollars, rounded up."""
        input_rate, output_rate = self._rates
        return -(-(input_rate * prompt_tokens + output_rate * completion_tokens) // FINE)

    @cached_property
    def _rates(self) -> tuple[int, int]:
        # A price per million in USD is a price per token in micro-dollars. Whole numbers, for sums must be exact.
        return math.ceil(Fraction(str(self.input)) * 1000 * FINE), math.ceil(Fraction(str(self.output)) * 1000 * FINE)

    def worst_case(self, request: ChatRequest) -> int:
        """The most that one attempt at `request` can cost, in nano-dollars."""
        return self.cost(request.prompt_token_bound, request.max_tokens)

    def worst_rate(self) -> float:
        """The higher of the two; zero where prices are unknown."""
        return max(self.input, self.output)

    def scaled(self, factor: float) -> Prices:
        """Prices times `factor`."""
        return Prices(self.input * factor, self.output * factor)


def find_prices(model: str, base_url_is_openai: bool, price_input: float | None, price_output: float | None) -> Prices:
    """Prices as given, or as known for a model of OpenAI; zero where they are unknown.

    Raises:
        SageError: one price without the other.
    """
    if (price_input is None) != (price_output is None):
        raise SageError("one price without the other\n  remedy: give both --price-input and --price-output")
    if price_input is not None and price_output is not None:
        return Prices(price_input, price_output)
    names = [name for name in KNOWN_PRICES if re.fullmatch(re.escape(name) + r"(-\d{4}-\d{2}-\d{2})?", model)]
    if base_url_is_openai and names:
        return Prices(*KNOWN_PRICES[max(names, key=len)])
    return Prices(0.0, 0.0)


class Budget:
    """Reserves the worst case of each request before it is sent, so that the cap is never exceeded.

    Args:
        cap: nano-dollars, or None for no cap.
        spent: nano-dollars that the ledger counts already, uncertain attempts at their worst case.
    """

    def __init__(self, cap: int | None, spent: int) -> None:
        self.cap = cap
        self.spent = spent
        self.reserved = 0

    def reserve(self, amount: int) -> bool:
        """Set `amount` aside if it fits under the cap beside everything in flight."""
        if self.cap is not None and self.spent + self.reserved + amount > self.cap:
            return False
        self.reserved += amount
        return True

    def settle(self, reserved: int, cost: int) -> None:
        """Replace a reservation by what the attempt cost."""
        self.reserved -= reserved
        self.spent += cost


def dollars(nano: int) -> str:
    """For people."""
    return f"${nano / NANO:,.4f}" if nano < NANO else f"${nano / NANO:,.2f}"
