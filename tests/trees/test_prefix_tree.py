"""Trees hold exactly the sequences they were built of, each shared token once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.trees.prefix_tree import MIN_SHARED_TOKENS, build_prefix_tree

IMAGE = list(range(100, 120))


def path(tree, leaf):
    """Tokens from the root to the end of a leaf's segment, by the parent links."""
    [index] = [number for number, segment in enumerate(tree.segments) if segment.leaf == leaf]
    tokens = []
    while index >= 0:
        tokens = [*tree.segments[index].tokens, *tokens]
        index = tree.segments[index].parent
    return tokens


def test_a_group_by_hand():
    first, second = [*IMAGE, 1, 2, 3], [*IMAGE, 4, 3]
    tree = build_prefix_tree([first, second], [(0, [7, 8]), (0, [9]), (1, [7])])
    assert [(list(segment.tokens), segment.parent, segment.depth, segment.leaf) for segment in tree.segments] == [
        (IMAGE, -1, 0, None),
        ([1, 2], 0, 20, None),
        ([3, 7], 1, 22, 0),
        ([3], 1, 22, 1),
        ([4], 0, 20, None),
        ([3], 4, 21, 2),
    ]
    assert tree.tokens == [*IMAGE, 1, 2, 3, 7, 3, 4, 3]
    assert tree.positions[20:] == [20, 21, 22, 23, 22, 20, 21]
    assert tree.scored_positions == [22, 23, 24, 26]
    assert tree.labels == [7, 8, 9, 7]
    assert tree.leaves == [0, 0, 1, 2]
    assert tree.spans == [(0, 20, -1), (20, 22, 0), (22, 24, 1), (24, 25, 1), (25, 26, 0), (26, 27, 4)]


def test_a_conversation_goes_deeper():
    first = [*IMAGE, 1, 2]
    second = [*first, *range(30, 45), 3]
    third = [*second, *range(50, 65), 4]
    tree = build_prefix_tree([first, second, third], [(0, [5]), (1, [6]), (2, [7])])
    assert len(tree.tokens) == len(third) - 1 + 3
    for leaf, prompt in enumerate((first, second, third)):
        assert path(tree, leaf) == prompt


def test_an_earlier_prompt_keeps_its_answers_when_a_later_one_splits_it():
    long, short = [*IMAGE, *range(10), 99], [*IMAGE, *range(5), 98, 99]
    tree = build_prefix_tree([long, short], [(0, [1]), (1, [2])])
    assert path(tree, 0) == long
    assert path(tree, 1) == short


def test_short_overlaps_are_repeated():
    one, other = [1, 2, 3, 4, 5], [1, 2, 3, 6, 5]
    assert MIN_SHARED_TOKENS > 3
    tree = build_prefix_tree([one, other], [(0, [7]), (1, [7])])
    assert [segment.parent for segment in tree.segments if segment.leaf is None] == [-1, -1]


@pytest.mark.parametrize(("prompts", "answers"), [([[1]], [(0, [2])]), ([[1, 2]], [(0, [])])])
def test_empty_sequences_are_refused(prompts, answers):
    with pytest.raises(ValueError, match="two tokens at least"):
        build_prefix_tree(prompts, answers)


tokens = st.integers(0, 3)


@given(
    st.lists(st.lists(tokens, min_size=2, max_size=40), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.lists(tokens, min_size=1, max_size=6)), min_size=1, max_size=8),
    st.integers(0, 30),
)
def test_every_leaf_s_path_is_its_sequence(tails, answers, shared):
    prompts = [[*range(10, 10 + shared), *tail] for tail in tails]
    answers = [(index % len(prompts), answer) for index, answer in answers]
    tree = build_prefix_tree(prompts, answers)
    for leaf, (prompt, answer) in enumerate(answers):
        assert path(tree, leaf) == [*prompts[prompt], *answer[:-1]]
        scored = zip(tree.scored_positions, tree.labels, tree.leaves, strict=True)
        own = [(place, label) for place, label, owner in scored if owner == leaf]
        assert [label for _, label in own] == answer
        assert [tree.tokens[place] for place, _ in own] == [prompts[prompt][-1], *answer[:-1]]
    for index, (segment, (start, stop, parent)) in enumerate(zip(tree.segments, tree.spans, strict=True)):
        assert parent < index
        assert tree.positions[start:stop] == list(range(segment.depth, segment.depth + stop - start))
    # What is shared by all stands once.
    assert len(tree.tokens) <= sum(len(prompt) for prompt in prompts) + sum(len(answer) for _, answer in answers)
