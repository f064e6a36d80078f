"""The growing cache holds what transformers' own does, whatever is done to it, and copies less."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from sage_trl.models.growing_cache import ROOM, GrowingLayer, make_growing

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([1, 2, ROOM - 1, ROOM + 3])),
        st.tuples(st.just("select"), st.sampled_from([(0,), (1, 0), (1, 1, 0)])),
        st.tuples(st.just("reorder"), st.just((1, 0))),
        st.tuples(st.just("crop"), st.sampled_from([-1, -2])),
        st.tuples(st.just("reset"), st.none()),
    ),
    max_size=8,
)


def states(rows: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 2, tokens, 3, generator=generator)
    return keys, values


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_any_steps_give_what_transformers_has(steps: list[tuple[str, object]]) -> None:
    theirs, first = DynamicLayer(), states(2, 5, seed=0)
    theirs.update(*first)
    ours = GrowingLayer(*first)
    rows = 2
    for number, (step, of) in enumerate(steps):
        if step == "add":
            added = states(rows, of, seed=1 + number)
            for one, other in zip(ours.update(*added), theirs.update(*added), strict=True):
                assert torch.equal(one, other)
            continue
        empty = theirs.get_seq_length() == 0
        for layer in (ours, theirs):
            if step == "reset":
                layer.reset()
            elif empty:
                continue
            elif step == "select":
                layer.batch_select_indices(torch.tensor([row % rows for row in of]))
            elif step == "reorder":
                layer.reorder_cache(torch.tensor([row % rows for row in range(rows)][::-1]))
            elif theirs.get_seq_length() > 2:
                layer.crop(of)
        if step == "select" and not empty:
            rows = len(of)
        assert ours.get_seq_length() == theirs.get_seq_length()
        if theirs.get_seq_length():
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_a_step_copies_nothing_of_those_before_it() -> None:
    layer = GrowingLayer(*states(2, 5, seed=0))
    layer.update(*states(2, 1, seed=1))
    place = layer.keys.data_ptr()
    for step in range(ROOM):
        layer.update(*states(2, 1, seed=2 + step))
    assert layer.keys.data_ptr() == place
    layer.update(*states(2, 1, seed=0))
    assert layer.keys.data_ptr() != place and layer.get_seq_length() == 5 + ROOM + 2


def test_layers_of_other_kinds_stay() -> None:
    cache = DynamicCache()
    plain, sliding = DynamicLayer(), DynamicSlidingWindowLayer(sliding_window=4)
    for layer in (plain, sliding):
        layer.update(*states(2, 3, seed=0))
    cache.layers = [plain, sliding, DynamicLayer()]

    make_growing(cache)

    assert [type(layer) for layer in cache.layers] == [GrowingLayer, DynamicSlidingWindowLayer, DynamicLayer]
    assert torch.equal(cache.layers[0].keys, plain.keys)
