"""From a review to a new version of the dataset, through the command line."""

from __future__ import annotations

import json
import shutil

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.validation import check_dataset
from tests.evaluation.small_ad_pl import move_images_out
from tests.review.conftest import review
from tests.review.test_session import act, close, open_session


def test_accepted_changes_go_over_rejected_questions_do_not(ad_pl, tmp_path):
    (ad_pl / "scores.jsonl").write_text("{}\n")
    session = open_session(ad_pl)
    act(session, 0, "order", order=[1, 0, 2, 3])
    act(session, 1, "edit", answer=0, text="Yes, a scratch at the upper left.")
    act(session, 2, "accept")
    act(session, 0, "reject", place=("g0", "q2"))
    act(session, 0, "reject", place=("g1", "q1"))
    act(session, 0, "reject", place=("g1", "q2"))
    act(session, 0, "order", place=("g2", "q1"), order=[3, 2, 1, 0])  # neither accepted nor rejected
    close(session)
    before = {path.name: path.read_bytes() for path in ad_pl.iterdir() if path.is_file()}
    output = tmp_path / "reviewed"
    result = review("--dataset", ad_pl, "--apply", output)
    assert result.returncode == 0, result.stderr
    assert "accepted 1 (1 of them changed), rejected 3" in result.stdout
    assert "as they were: 6" in result.stdout and "(4 groups)" in result.stdout
    assert {path.name: path.read_bytes() for path in ad_pl.iterdir() if path.is_file()} == before
    old = {row.id: row for row in read_ad_pl(ad_pl).inspections}
    new = {row.id: row for row in read_ad_pl(output).inspections}
    assert check_dataset(output) == [] and set(new) == {"g0", "g2", "g3", "g4"}
    [question] = new["g0"].questions
    was = old["g0"].questions[0].answers
    assert question.answers == (was[1], "Yes, a scratch at the upper left.", was[2], was[3])
    assert new["g2"] == old["g2"] and new["g4"] == old["g4"]
    assert (output / "facts.jsonl").read_bytes() == before["facts.jsonl"]
    assert (output / "applied_review.jsonl").read_bytes() == before["review.jsonl"]
    assert not (output / "scores.jsonl").exists() and not (output / "images" / "1_test.png").exists()
    assert json.loads((output / "dataset.json").read_text())["splits"] == {"test": 3, "unseen": 1}


def test_images_that_were_left_in_place_come_inside(ad_pl, tmp_path):
    place = move_images_out(ad_pl, "benchmark/photos")
    session = open_session(ad_pl)
    act(session, 0, "accept")
    close(session)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    output = tmp_path / "new" / "reviewed"
    result = review("--dataset", ad_pl, "--apply", output)
    assert result.returncode == 0, result.stderr
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "new")]
    assert sorted(path.relative_to(tmp_path) for path in outside) == before
    shutil.rmtree(place)
    assert check_dataset(output) == [] and len(read_ad_pl(output).inspections) == 5
    assert json.loads((output / "dataset.json").read_text())["image_root"] == "."


def test_what_cannot_be_applied_is_refused_and_writes_nothing(ad_pl, tmp_path):
    for said in ("review the dataset first", "nothing is left"):
        result = review("--dataset", ad_pl, "--apply", tmp_path / "reviewed")
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
        assert not (tmp_path / "reviewed").exists()
        session = open_session(ad_pl)
        for row in session.groups:
            for question in row.questions:
                act(session, 0, "reject", place=(row.id, question.id))
        close(session)
    (ad_pl / "review.jsonl").write_text("")
    shutil.copytree(ad_pl, tmp_path / "taken")
    result = review("--dataset", ad_pl, "--apply", tmp_path / "taken")
    assert result.returncode == 2 and "not empty" in result.stderr


def test_faults_of_the_command_line(ad_pl, tmp_path):
    for arguments, said in [
        (("--dataset", tmp_path), "dataset.json"),
        (("--dataset", ad_pl, "--split", "nothing"), "no split 'nothing'"),
        (("--dataset", ad_pl, "--port", 65536), "65536 is no port"),
    ]:
        result = review(*arguments)
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
