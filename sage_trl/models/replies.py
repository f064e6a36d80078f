"""What a model under test says to one question."""

from __future__ import annotations

from typing import NamedTuple


class Reply(NamedTuple):
    """A reply.

    `yes_probability` is the chance, 0-1, that the answer begins with yes rather than with no, None where the model
    cannot tell.
    """

    text: str
    yes_probability: float | None = None
