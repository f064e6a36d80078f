"""Actions, their log and what replaying it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage_trl.data.dataset import read_ad_pl
from sage_trl.errors import DataError, LockedError
from sage_trl.review.session import ConflictError, ReviewSession, read_state

PLACE = ("g0", "q1")


def open_session(root: Path) -> ReviewSession:
    return ReviewSession(read_ad_pl(root), "Ann")


def act(session: ReviewSession, revision: int, action: str, place: tuple[str, str] = PLACE, **fields: Any) -> None:
    session.act(*place, revision, {"action_id": f"{place[0]}-{place[1]}-{revision:04d}", "action": action, **fields})


def close(session: ReviewSession) -> None:
    session._log._appender.close()


def test_each_action_is_one_line_before_act_returns(ad_pl):
    before = (ad_pl / "ad_pl.jsonl").read_bytes()
    session = open_session(ad_pl)
    for revision, (action, fields) in enumerate(
        [
            ("order", {"order": [1, 0, 2, 3]}),
            ("edit", {"answer": 2, "text": " Yes, a dent. "}),
            ("edit", {"text": "Is it scratched?"}),
            ("accept", {}),
        ]
    ):
        act(session, revision, action, **fields)
        lines = [json.loads(line) for line in (ad_pl / "review.jsonl").read_text().splitlines()]
        assert len(lines) == revision + 1
        last = lines[-1]
        assert (last["action"], last["reviewer"]) == (action, "Ann")
        assert (last["group_id"], last["question_id"]) == PLACE
        assert last["time"].endswith("+00:00")
    assert lines[0]["order"] == [1, 0, 2, 3]
    assert (lines[1]["answer"], lines[1]["text"]) == (2, "Yes, a dent.")
    assert (ad_pl / "ad_pl.jsonl").read_bytes() == before
    view = session.view(0)
    assert view["text"] == "Is it scratched?" and view["order"] == [1, 0, 2, 3] and view["status"] == "accepted"
    assert view["answers"][2] == "Yes, a dent." and view["revision"] == 4
    assert session.statuses() == "a" + "o" * 9
    close(session)
    assert open_session(ad_pl).view(0) == view


def test_a_change_after_accepting_opens_the_question_again(ad_pl):
    session = open_session(ad_pl)
    act(session, 0, "accept")
    act(session, 1, "order", order=[3, 2, 1, 0])
    assert session.statuses()[0] == "o"
    act(session, 2, "reject")
    act(session, 3, "reopen")
    assert session.view(0)["status"] == "open"


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("order", {"order": [0, 1, 2]}),
        ("order", {"order": [0, 0, 1, 2]}),
        ("order", {}),
        ("edit", {"text": "  "}),
        ("edit", {"text": "x" * 10_001}),
        ("edit", {"answer": 4, "text": "new"}),
        ("edit", {"answer": -1, "text": "new"}),
        ("edit", {"answer": 1, "text": "Yes, scratch at the top left."}),
        ("accept", {"text": "new"}),
        ("delete", {}),
        ("accept", {"path": "/etc"}),
    ],
)
def test_an_impossible_action_is_refused_and_leaves_no_line(ad_pl, action, fields):
    session = open_session(ad_pl)
    before = session.view(0)
    with pytest.raises(ValueError):
        act(session, 0, action, **fields)
    assert session.view(0) == before and (ad_pl / "review.jsonl").read_bytes() == b""


def test_the_client_does_not_choose_the_reviewer(ad_pl):
    session = open_session(ad_pl)
    act(session, 0, "accept", reviewer="Bob", time="yesterday")
    [line] = (ad_pl / "review.jsonl").read_text().splitlines()
    assert json.loads(line)["reviewer"] == "Ann" and "yesterday" not in line


def test_an_action_on_an_old_state_is_a_conflict_and_a_repeated_one_is_not(ad_pl):
    session = open_session(ad_pl)
    request = {"action_id": "same-action", "action": "reject"}
    session.act(*PLACE, 0, request)
    session.act(*PLACE, 0, request)  # sent again, because the answer was lost
    with pytest.raises(ConflictError):
        session.act(*PLACE, 0, {**request, "action_id": "another-one"})
    assert len((ad_pl / "review.jsonl").read_text().splitlines()) == 1


def test_a_line_that_a_kill_cut_short_is_not_there(ad_pl):
    session = open_session(ad_pl)
    act(session, 0, "accept")
    close(session)
    log = ad_pl / "review.jsonl"
    whole = log.read_bytes()
    for kept in (1, len(whole) // 2, len(whole) - 1):
        log.write_bytes(whole + whole[:kept])
        assert read_state(read_ad_pl(ad_pl)).questions[PLACE].revision == 1
        session = open_session(ad_pl)
        assert session.view(0)["revision"] == 1 and log.read_bytes() == whole
        close(session)


def test_a_faulty_line_names_file_and_line(ad_pl):
    session = open_session(ad_pl)
    act(session, 0, "accept")
    close(session)
    log = ad_pl / "review.jsonl"
    good = json.loads(log.read_text())
    for bad in ({**good, "action": "praise"}, {**good, "action": "order", "order": [0, 1]}):
        log.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(DataError, match=r"review\.jsonl:2: .*\n  remedy"):
            read_state(read_ad_pl(ad_pl))


def test_a_review_of_another_wording_is_ignored_and_counted(ad_pl):
    session = open_session(ad_pl)
    act(session, 0, "reject")
    act(session, 0, "accept", place=("g1", "q1"))
    close(session)
    rows = [json.loads(line) for line in (ad_pl / "ad_pl.jsonl").read_text().splitlines()]
    rows[0]["questions"][0]["question"] = "Is the part dented?"
    _rewrite(ad_pl, rows[:1] + rows[2:])
    state = read_state(read_ad_pl(ad_pl))
    assert state.ignored == 2 and state.counts() == {"open": 8}


def test_one_review_at_a_time(ad_pl):
    session = open_session(ad_pl)
    with pytest.raises(LockedError, match=r"review\.jsonl"):
        open_session(ad_pl)
    close(session)


def test_a_failed_write_counts_for_nothing_and_stops_the_review(ad_pl, monkeypatch):
    session = open_session(ad_pl)

    def full(_rows: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session._log._appender, "append", full)
    with pytest.raises(DataError, match="No space left"):
        act(session, 0, "accept")
    monkeypatch.undo()
    with pytest.raises(DataError, match="start the review again"):
        act(session, 0, "accept")
    assert session.view(0)["revision"] == 0


def _rewrite(root: Path, rows: list[dict[str, Any]]) -> None:
    from sage_trl.data.dataset import read_info, write_ad_pl
    from sage_trl.records import Inspection

    write_ad_pl(root, [Inspection.model_validate(row) for row in rows], read_info(root))
