"""Dense and split attention against each branch on its own, in float64."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sage_trl.trees.prefix_tree import build_prefix_tree
from sage_trl.trees.tree_attention import dense_mask, split_attention_forward, split_trees
from sage_trl.trees.varlen_attention import attend_varlen, half_precision, varlen_trees

HEADS, KEY_HEADS, DIM = 4, 2, 8


def pad_spans(trees):
    longest = max(len(tree.segments) for tree in trees)
    return torch.tensor([tree.spans + [(-1, -1, -1)] * (longest - len(tree.segments)) for tree in trees])


def states(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, heads, length, DIM) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def by_path(tree, query, key, value):
    """Each segment's output from causal attention over its own path alone: `[heads, T, D]`."""
    output = torch.zeros(HEADS, query.shape[1], DIM, dtype=torch.float64)
    for start, stop, parent in tree.spans:
        indices, above = list(range(start, stop)), parent
        while above >= 0:
            first, last, higher = tree.spans[above]
            indices, above = [*range(first, last), *indices], higher
        keys, values = (part[:, indices].repeat_interleave(HEADS // KEY_HEADS, dim=0) for part in (key, value))
        attended = functional.scaled_dot_product_attention(query[:, indices], keys, values, is_causal=True)
        output[:, start:stop] = attended[:, -(stop - start) :]
    return output


def split(spans, query, key, value):
    module = SimpleNamespace(num_key_value_groups=HEADS // KEY_HEADS)
    output, _ = split_attention_forward(module, query, key, value, None, tree=split_trees(spans))
    return output.transpose(1, 2)


def dense(spans, query, key, value):
    keys, values = (part.repeat_interleave(HEADS // KEY_HEADS, dim=1) for part in (key, value))
    mask = dense_mask(spans, query.shape[2])
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


def flash_kernel(query, key, value, query_starts, key_starts, longest_query, longest_key, **options):
    """What FlashAttention documents of `flash_attn_varlen_func`: causal masks are aligned at the end."""
    assert options["causal"]
    pieces = []
    for index in range(len(query_starts) - 1):
        own = query[query_starts[index] : query_starts[index + 1]].transpose(0, 1)
        span = slice(key_starts[index], key_starts[index + 1])
        keys, values = (
            part[span].transpose(0, 1).repeat_interleave(HEADS // KEY_HEADS, dim=0) for part in (key, value)
        )
        n, m = own.shape[1], keys.shape[1]
        assert n <= longest_query
        assert m <= longest_key
        mask = torch.ones(n, m, dtype=torch.bool).tril(m - n)
        attended = functional.scaled_dot_product_attention(own, keys, values, attn_mask=mask)
        pieces.append(attended.transpose(0, 1))
    return torch.cat(pieces)


def varlen(spans, query, key, value):
    trees = varlen_trees(spans, query.shape[2])
    return attend_varlen(query, key, value, trees, 0.0, None, kernel=flash_kernel).transpose(1, 2)


def check(trees):
    spans = pad_spans(trees)
    length = max(len(tree.tokens) for tree in trees)
    query, key, value = states(len(trees), length)
    expected = [by_path(tree, query[row], key[row], value[row]) for row, tree in enumerate(trees)]
    real = [slice(0, len(tree.tokens)) for tree in trees]
    loss = sum((one[:, part] ** 2).sum() for one, part in zip(expected, real, strict=True))
    gradients = torch.autograd.grad(loss, (query, key, value))
    for form in (split, dense, varlen):
        output = form(spans, query, key, value)
        for row, part in enumerate(real):
            assert torch.allclose(output[row, :, part], expected[row][:, part], atol=1e-12)
        loss = sum((output[row, :, part] ** 2).sum() for row, part in enumerate(real))
        for one, other in zip(torch.autograd.grad(loss, (query, key, value)), gradients, strict=True):
            assert torch.allclose(one, other, atol=1e-10)


def test_several_trees_of_unequal_size():
    image = list(range(100, 112))
    large = build_prefix_tree(
        [[*image, 1, 2], [*image, 3, 4, 5], [*image, *range(20, 40)]],
        [(0, [7, 8]), (0, [9]), (1, [7, 7, 7]), (2, [5])],
    )
    small = build_prefix_tree([[*image, 1]], [(0, [2, 3])])
    check([large, small])


def test_sequences_that_share_nothing():
    check([build_prefix_tree([[1, 2, 3], [4, 5, 6]], [(0, [7, 8]), (1, [9])])])


tokens = st.integers(0, 2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(tokens, min_size=2, max_size=20), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.lists(tokens, min_size=1, max_size=4)), min_size=1, max_size=5),
    st.integers(0, 12),
)
def test_any_tree(tails, answers, shared):
    prompts = [[*range(10, 10 + shared), *tail] for tail in tails]
    check([build_prefix_tree(prompts, [(index % len(prompts), answer) for index, answer in answers])])


def test_without_a_tree_it_is_sdpa():
    query, key, value = states(2, 5)
    module = SimpleNamespace(num_key_value_groups=HEADS // KEY_HEADS, is_causal=True)
    output, _ = split_attention_forward(module, query, key, value, None)
    keys, values = (part.repeat_interleave(HEADS // KEY_HEADS, dim=1) for part in (key, value))
    expected = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
    assert torch.allclose(output.transpose(1, 2), expected)


@pytest.mark.parametrize("form", [split, dense, varlen])
def test_padding_gives_finite_numbers(form):
    trees = [build_prefix_tree([[1, 2, 3]], [(0, [4])]), build_prefix_tree([[*range(20)]], [(0, [4, 5])])]
    output = form(pad_spans(trees), *states(2, max(len(tree.tokens) for tree in trees)))
    assert output.isfinite().all()


def test_flash_attention_is_for_half_precision_on_cuda_where_installed(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert half_precision(cuda, torch.bfloat16) is None
    monkeypatch.setattr("sage_trl.trees.varlen_attention.is_flash_attn_2_available", lambda: True)
    assert half_precision(cpu, torch.bfloat16) is None
    assert half_precision(cuda, torch.bfloat16) is torch.bfloat16
    assert half_precision(cuda, torch.float32) is None


@pytest.mark.gpu
def test_flash_attention_is_sdpa_on_cuda():
    pytest.importorskip("flash_attn")
    image = list(range(100, 140))
    trees = [build_prefix_tree([[*image, 1, 2], [*image, 3, 4, 5]], [(0, [7, 8]), (0, [9]), (1, [7, 7, 7])])]
    spans = pad_spans(trees).cuda()
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn((1, heads, len(trees[0].tokens), 64), generator=generator).cuda().bfloat16()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    flash = attend_varlen(query, key, value, varlen_trees(spans, query.shape[2]), 0.0, None).transpose(1, 2)
    assert torch.allclose(flash.float(), split(spans, query.float(), key.float(), value.float()), atol=3e-2)
