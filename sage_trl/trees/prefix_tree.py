"""Prefix trees of token sequences: what several prompts share stands once, each answer is a leaf.

A tree is one packed sequence. Its segments stand in depth-first order, so all that follows from a segment stands right
behind it. A token attends to the tokens of its own segment up to itself and to those of the segments above.

The last token of a prompt predicts the first token of every answer to it. It is therefore copied into the front of each
answer's leaf, where prompts hold no label, so that every position has one label at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# A shared piece shorter than this is repeated: a segment of its own would cost more than it saves.
MIN_SHARED_TOKENS = 8


@dataclass(frozen=True)
class Segment:
    """A piece of a tree without branches.

    Attributes:
        tokens: token ids.
        parent: index of the segment above, -1 for the root.
        depth: tokens above the first one.
        leaf: index of the answer that ends here, None within prompts.
    """

    tokens: tuple[int, ...]
    parent: int
    depth: int
    leaf: int | None = None


@dataclass(frozen=True)
class PrefixTree:
    """A tree of prompts and answers, segments in depth-first order.

    Attributes:
        segments: the pieces.
        answers: the tokens of each leaf's answer, which are the labels of its segment.
    """

    segments: tuple[Segment, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> list[int]:
        """All token ids, packed."""
        return [token for segment in self.segments for token in segment.tokens]

    @property
    def positions(self) -> list[int]:
        """The position of each token along its own branch."""
        return [segment.depth + offset for segment in self.segments for offset in range(len(segment.tokens))]

    @property
    def scored_positions(self) -> list[int]:
        """The packed positions that predict a token of an answer: those of the leaves' segments."""
        leaves = [span for segment, span in zip(self.segments, self.spans, strict=True) if segment.leaf is not None]
        return [position for start, stop, _ in leaves for position in range(start, stop)]

    @property
    def labels(self) -> list[int]:
        """What each scored position predicts."""
        return [label for segment in self.segments if segment.leaf is not None for label in self.answers[segment.leaf]]

    @property
    def leaves(self) -> list[int]:
        """The leaf that each scored position belongs to."""
        return [segment.leaf for segment in self.segments if segment.leaf is not None for _ in segment.tokens]

    @property
    def spans(self) -> list[tuple[int, int, int]]:
        """(start, stop, parent) of every segment in the packed sequence."""
        spans, start = [], 0
        for segment in self.segments:
            spans.append((start, start + len(segment.tokens), segment.parent))
            start += len(segment.tokens)
        return spans


@dataclass
class _Node:
    tokens: list[int]
    children: list[_Node] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)


def build_prefix_tree(prompts: Sequence[Sequence[int]], answers: Sequence[tuple[int, Sequence[int]]]) -> PrefixTree:
    """Merge prompts by their common prefixes and hang each answer below its prompt.

    Args:
        prompts: token ids of each prompt; they should share their beginning, with the image.
        answers: (index of the prompt, token ids) of each answer; leaf i is answers[i].

    Raises:
        ValueError: an empty prompt or answer.
    """
    if any(len(prompt) < 2 for prompt in prompts) or any(not tokens for _, tokens in answers):
        raise ValueError("prompts need two tokens at least, and answers one")
    root = _Node([])
    ends = [_insert(root, list(prompt[:-1])) for prompt in prompts]
    for leaf, (prompt, _) in enumerate(answers):
        ends[prompt].leaves.append(leaf)
    segments: list[Segment] = []
    starts = [(prompts[prompt][-1], *tokens[:-1]) for prompt, tokens in answers]
    _emit(root, -1, 0, starts, segments)
    return PrefixTree(tuple(segments), tuple(tuple(tokens) for _, tokens in answers))


def _insert(node: _Node, tokens: list[int]) -> _Node:
    """The node where `tokens` ends below `node`, made where there is none."""
    for index, child in enumerate(node.children):
        shared = common_prefix(child.tokens, tokens)
        is_whole = shared == len(child.tokens)
        if shared < MIN_SHARED_TOKENS and not is_whole:
            continue
        if is_whole:
            return child if shared == len(tokens) else _insert(child, tokens[shared:])
        # The lower part stays the same object, because an earlier prompt may end there.
        upper = _Node(child.tokens[:shared], [child])
        child.tokens = child.tokens[shared:]
        node.children[index] = upper
        return upper if shared == len(tokens) else _insert(upper, tokens[shared:])
    node.children.append(_Node(tokens))
    return node.children[-1]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    shortest = min(len(one), len(other))
    return next((index for index in range(shortest) if one[index] != other[index]), shortest)


def _emit(node: _Node, parent: int, depth: int, starts: Sequence[tuple[int, ...]], segments: list[Segment]) -> None:
    if node.tokens:
        segments.append(Segment(tuple(node.tokens), parent, depth))
        parent, depth = len(segments) - 1, depth + len(node.tokens)
    segments += [Segment(starts[leaf], parent, depth, leaf) for leaf in node.leaves]
    for child in node.children:
        _emit(child, parent, depth, starts, segments)
