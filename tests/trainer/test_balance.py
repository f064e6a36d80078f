"""Dividing steps among processes: every row once, nobody idle, and even loads on lengths shaped like AD-PL's."""

import random
from itertools import islice

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.trainer.balance import Piece, divide, imbalance, load
from sage_trl.trainer.step_plans import ProcessBatches, RowsAndFillers, RowSteps, TokenSteps
from sage_trl.trainer.tree_sizes import TreeSize

PROCESSES = 8
# AD-PL has 28,415 questions of three levels, five to a group, on photos of three sources (paper, section 4). How long
# its texts are the paper does not say; these are tokens of a question and of an answer in its examples (figure 4).
LEVELS = {12460: (25, 30), 10635: (30, 45), 5320: (35, 80)}
PHOTOS = {"mvtec": 1722, "visa": 2403, "mpdd": 448}
# Tokens of a photo in tiles of 448 px, 256 tokens each, and a thumbnail: square photos have 3 x 3 tiles, VisA's 3 x 2.
TILES = {"mvtec": 10, "visa": 7, "mpdd": 10}


def ad_pl_sizes(stage, *, tiled, sources=tuple(PHOTOS), share=1.0):
    """Trees of groups of five questions with four ranked answers, for `sfe` or for `edpo`."""
    draw = random.Random(0)
    sizes, first = [], 0
    for questions, (question_tokens, answer_tokens) in LEVELS.items():
        for _ in range(round(questions / 5 * share)):
            source = draw.choices(sources, [PHOTOS[name] for name in sources])[0]
            segments = [256 * (TILES[source] if tiled else 1) + 60]
            paths = []
            for _ in range(5):
                segments.append(max(8, round(draw.gauss(question_tokens, question_tokens / 4))))
                question = len(segments) - 1
                answers = [max(5, round(answer_tokens * draw.lognormvariate(0, 0.35))) for _ in range(4)]
                segments += answers[:1] if stage == "sfe" else answers
                if stage == "sfe":
                    paths.append(frozenset({0, question, question + 1}))
                else:
                    closest = question + 1 + draw.randrange(3)
                    paths.append(frozenset({0, question, question + 1, question + 4}))
                    paths.append(frozenset({0, question, closest, closest + 1}))
            rows = tuple(range(first, first + len(paths)))
            first += len(rows)
            sizes.append(TreeSize(str(len(sizes)), rows, tuple(segments), tuple(paths)))
    return sizes


@pytest.mark.parametrize("stage", ["sfe", "edpo"])
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("trees", [1, 4])
def test_a_budget_of_tokens_is_balanced_on_ad_pl(stage, tiled, trees):
    sizes = ad_pl_sizes(stage, tiled=tiled, share=0.3)
    plan = TokenSteps(sizes, trees * max(size.tokens for size in sizes), PROCESSES, seed=1)
    found = imbalance(plan.steps(0))
    print(stage, tiled, trees, found)
    assert found.mean <= 1.10
    assert found.split < 0.01
    ratios = sorted(max(map(load, step)) * PROCESSES / sum(map(load, step)) for step in plan.steps(0))
    # The step that lacks batches is divided anew, as well as its trees allow.
    assert ratios[-2] <= 1.10


@pytest.mark.parametrize(
    ("stage", "sources", "most"),
    [("sfe", ["mvtec"], 1.10), ("edpo", ["visa"], 1.10), ("sfe", list(PHOTOS), 1.25), ("edpo", list(PHOTOS), 1.10)],
)
def test_the_recipes_rows_on_their_part_of_ad_pl_and_on_all(stage, sources, most):
    """Four rows for each of eight processes, as recipes/sfe.yaml and recipes/edpo.yaml have them."""
    sizes = ad_pl_sizes(stage, tiled=True, sources=sources, share=0.1)
    steps = list(islice(RowSteps(sizes, 4 * PROCESSES, PROCESSES, seed=1).steps(0), 40))
    found = imbalance(steps)
    print(stage, sources, found)
    assert found.mean <= most
    # As accelerate divides them: the same rows, so many to each process in order.
    fullest = 0
    for step in steps:
        rows = [(piece.size, row) for share in step for piece in share for row in piece.rows]
        rows.sort(key=lambda pair: pair[1])
        shares = []
        for start in range(0, len(rows), 4):
            of_groups = {}
            for size, row in rows[start : start + 4]:
                of_groups.setdefault(size, []).append(row)
            shares.append([Piece(size, tuple(taken)) for size, taken in of_groups.items()])
        fullest += max(map(load, shares))
    assert sum(max(map(load, step)) for step in steps) < fullest


groups_of_rows = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=12)


def sizes_of(groups):
    """(rows, tokens that they share, tokens of each) -> sizes."""
    sizes, first = [], 0
    for number, (rows, shared, own) in enumerate(groups):
        paths = tuple(frozenset({0, 1 + index}) for index in range(rows))
        sizes.append(TreeSize(str(number), tuple(range(first, first + rows)), (shared, *[own] * rows), paths))
        first += rows
    return sizes


@given(groups_of_rows, st.integers(1, 9))
def test_nobody_is_idle_and_no_row_is_lost(groups, processes):
    sizes = sizes_of(groups)
    pieces = [Piece(size, size.rows) for size in sizes]
    shares = divide(pieces, processes)
    rows = sorted(row for share in shares for piece in share for row in piece.rows)
    assert rows == list(range(len(rows))) and len(rows) == sum(len(size.rows) for size in sizes)
    assert len([share for share in shares if share]) == min(processes, len(rows))
    for share in shares:
        assert len({piece.size for piece in share}) == len(share)
    assert max(map(load, shares)) <= load(pieces)
    assert shares == divide(pieces, processes)


def test_whole_groups_where_there_are_enough_and_a_split_where_there_are_not():
    [first, second] = divide([Piece(size, size.rows) for size in sizes_of([(4, 100, 10), (4, 100, 10)])], 2)
    assert [len(share) for share in (first, second)] == [1, 1]
    assert [len(piece.rows) for piece in (*first, *second)] == [4, 4]
    shares = divide([Piece(size, size.rows) for size in sizes_of([(6, 100, 10)])], 3)
    assert [[len(piece.rows) for piece in share] for share in shares] == [[2], [2], [2]]
    # By tokens, not by rows: one long row against three short ones.
    shares = divide([Piece(size, size.rows) for size in sizes_of([(1, 90, 10), (3, 60, 10)])], 2)
    assert sorted(len(piece.rows) for share in shares for piece in share) == [1, 3]


@given(groups_of_rows, st.integers(1, 8), st.integers(1, 4))
def test_a_step_s_rows_do_not_depend_on_the_number_of_processes(groups, rows, processes):
    sizes = sizes_of(groups)
    for epoch in (0, 1):
        one, several = (
            [
                sorted(row for share in step for piece in share for row in piece.rows)
                for step in RowSteps(sizes, rows * processes, count, seed=4).steps(epoch)
            ]
            for count in (1, processes)
        )
        assert one == several
        assert sorted(row for step in one for row in step) == list(range(sum(len(size.rows) for size in sizes)))


def test_an_idle_process_gets_a_filler():
    dataset = Dataset.from_list([{"group_id": "g", "question_id": f"q{index}"} for index in range(5)])
    plan = RowSteps(sizes_of([(1, 9, 1), (2, 9, 1), (2, 9, 1)]), 4, 4, seed=None)
    taken = [list(ProcessBatches(plan, process, 5)) for process in range(4)]
    assert [len(batches) for batches in taken] == [2] * 4
    rows = RowsAndFillers(dataset)
    last = [rows.__getitems__(batches[1]) for batches in taken]
    assert sorted("is_filler" in row for [row] in last) == [False, True, True, True]
    assert {row["question_id"] for [row] in last} == {"q4"}
    assert len(rows) == 5


def test_what_is_left_can_be_left_out():
    sizes = sizes_of([(3, 9, 1), (4, 9, 1)])
    assert [len(RowSteps(sizes, 4, 2, seed=0, drop_last=drop)) for drop in (False, True)] == [2, 1]
    assert len(list(RowSteps(sizes, 4, 2, seed=0, drop_last=True).steps(0))) == 1


def test_the_imbalance_of_two_steps_by_hand():
    one, other, third = sizes_of([(2, 10, 5), (1, 10, 10), (1, 5, 5)])
    whole = [[[Piece(one, one.rows)], [Piece(other, other.rows)]]]  # 20 and 20 tokens
    uneven = [[[Piece(one, one.rows[:1])], [Piece(one, one.rows[1:]), Piece(third, third.rows)]]]  # 15 and 2 x 15
    found = imbalance([*whole, *uneven])
    assert (found.mean, found.worst) == (pytest.approx((20 + 30) / (20 + 22.5)), pytest.approx(30 / 22.5))
    assert (found.steps, found.split) == (2, 1 / 4)
    assert "1.176" in str(found) and "1.333" in str(found) and "25%" in str(found)
