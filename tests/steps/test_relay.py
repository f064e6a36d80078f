"""What reaches the terminal of commands that run at once."""

from __future__ import annotations

from sage_trl.steps.relay import BAR_SECONDS, Relay


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_passed_on_whole_and_under_their_step() -> None:
    shown: list[str] = []
    relay = Relay("train sfe", shown.append)

    for piece in ("lo", "ss 1.5\nnext", "\r", "\n", "\n  table\n", "no end"):
        relay.feed(piece)
    assert shown == ["[train sfe] loss 1.5", "[train sfe] next", "[train sfe]   table"]

    relay.close()
    assert shown[3:] == ["[train sfe] no end"]


def test_of_a_progress_bar_a_state_now_and_then_is_shown() -> None:
    shown: list[str] = []
    clock = Clock()
    relay = Relay("train", shown.append, clock)

    relay.feed(" 1%|#\r 2%|##\r")
    clock.now += BAR_SECONDS - 1
    relay.feed(" 3%|###\r")
    clock.now += 1
    relay.feed(" 4%|####\r 5%|#####\r")
    relay.feed("done\n")

    assert shown == ["[train]  1%|#", "[train]  4%|####", "[train] done"]


def test_no_step_moves_the_cursor_among_the_lines_of_others() -> None:
    shown: list[str] = []
    relay = Relay("train", shown.append)

    relay.feed("\x1b[A\n\x1b[31mloss\x1b[0m 1.5\x1b[A\n")

    assert shown == ["[train] loss 1.5"]
