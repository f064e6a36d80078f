"""Distinct patches (eq. 1), fusion attention (eq. 2) and its projection head (eq. 9)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization

PatchSimilarity = Literal["nearest", "farthest"]
PatchFeature = Literal["patch", "difference"]

# Similarity matrices are computed for as many rows of a batch at once as keep them below this number of elements.
MAX_SIMILARITY_ELEMENTS = 2**26

# Large on purpose, in units of the image tokens' mean square: a small difference to the reference must stay small. A
# tiny epsilon would blow the noise of a flawless part up to the size of a defect.
FUSION_NORM_EPS = 0.1


def cosine_similarity(test: Tensor, reference: Tensor) -> Tensor:
    """Cosine of every test patch with every reference patch in fp32: `[B, P, C]`, `[B, R, C]` -> `[B, P, R]`."""
    return functional.normalize(test.float(), dim=-1) @ functional.normalize(reference.float(), dim=-1).mT


@torch.no_grad()
def select_distinct_patches(
    test: Tensor,
    reference: Tensor,
    k: int,
    patch_similarity: PatchSimilarity = "nearest",
    test_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The K test patches least similar to the reference (eq. 1).

    `nearest` scores a test patch by its most similar reference patch, which is what the paper's text says; `farthest`
    takes the literal minimum of the formula.

    Args:
        test: `[B, P, C]` projected patches of the test images.
        reference: `[B, R, C]` projected patches of the reference images.
        k: number of patches to select.
        patch_similarity: `nearest` or `farthest`.
        test_mask: `[B, P]`, true for patches that may be selected.
        reference_mask: `[B, R]`, true for patches to compare with.

    Returns:
        indices `[B, min(k, P)]`, most distinct first, and their similarity. Where a row has fewer than `k` valid
        patches, the surplus entries come last with similarity +inf.
    """
    if k < 1:
        raise ValueError(f"k is {k}; at least one patch must be selected")
    if patch_similarity not in ("nearest", "farthest"):
        raise ValueError(f"patch_similarity {patch_similarity!r} is unknown; use 'nearest' or 'farthest'")
    rows_at_once = max(1, MAX_SIMILARITY_ELEMENTS // (test.shape[1] * reference.shape[1]))
    scores = []
    for start in range(0, test.shape[0], rows_at_once):
        rows = slice(start, start + rows_at_once)
        similarity = cosine_similarity(test[rows], reference[rows])
        excluded = None if reference_mask is None else ~reference_mask[rows, None, :]
        if patch_similarity == "nearest":
            similarity = similarity if excluded is None else similarity.masked_fill(excluded, -torch.inf)
            scores.append(similarity.amax(dim=-1))
        else:
            similarity = similarity if excluded is None else similarity.masked_fill(excluded, torch.inf)
            scores.append(similarity.amin(dim=-1))
    score = torch.cat(scores)
    if test_mask is not None:
        score = score.masked_fill(~test_mask, torch.inf)
    similarity, indices = score.sort(dim=-1, stable=True)
    k = min(k, test.shape[1])
    return indices[:, :k], similarity[:, :k]


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """`[B, P, C]` patches at `[B, K]` indices -> `[B, K, C]`."""
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


class ComparisonPatches(NamedTuple):
    """What the facts attend to.

    Attributes:
        keys, values: `[B, M, C]`.
        mask: `[B, M]`, true where there is a patch.
        indices: `[B, M]`, which of the test image's patches each is.
        similarity: `[B, M]` to the reference (eq. 1), in rising order; NaN in a row without one.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor
    indices: Tensor
    similarity: Tensor


def comparison_patches(
    test: Tensor,
    test_mask: Tensor,
    reference: Tensor | None,
    reference_mask: Tensor | None,
    *,
    k: int,
    patch_similarity: PatchSimilarity,
    fusion_keys: PatchFeature,
    fusion_values: PatchFeature,
) -> ComparisonPatches:
    """Keys and values of the fusion attention (section 3.2; zero-shot: section 5.1).

    A row with a reference contributes its K distinct patches, as `patch` (the test patch) or `difference` (the test
    patch minus its nearest reference patch). A row without one contributes all its test patches. Both kinds of row
    may stand in one batch.

    Args:
        test: `[B, P, C]` test patches; test_mask: `[B, P]` true for real patches.
        reference: `[B, R, C]` reference patches, or None if no row has a reference.
        reference_mask: `[B, R]`; a row that is false throughout has no reference.
    """
    if reference is None or reference_mask is None:
        indices = torch.arange(test.shape[1], device=test.device).expand(test.shape[:2])
        unknown = torch.full(test.shape[:2], torch.nan, device=test.device)
        return ComparisonPatches(test, test, test_mask, indices, unknown)
    has_reference = reference_mask.any(dim=-1)
    # A row without reference needs a comparable patch so that no row of the similarity is all masked; it is unused.
    comparable = reference_mask | ~has_reference[:, None]
    width = k if bool(has_reference.all()) else test.shape[1]
    indices, similarity = select_distinct_patches(test, reference, width, patch_similarity, test_mask, comparable)
    selected = gather_patches(test, indices)
    with torch.no_grad():
        nearest = cosine_similarity(selected, reference).masked_fill(~comparable[:, None, :], -torch.inf).argmax(-1)
    difference = selected - gather_patches(reference, nearest)
    difference = torch.where(has_reference[:, None, None], difference, selected)
    features: dict[PatchFeature, Tensor] = {"patch": selected, "difference": difference}
    in_top_k = torch.arange(indices.shape[1], device=test.device) < k
    mask = similarity.isfinite() & (in_top_k | ~has_reference[:, None])
    similarity = similarity.masked_fill(~has_reference[:, None], torch.nan)
    return ComparisonPatches(features[fusion_keys], features[fusion_values], mask, indices, similarity)


class FusionInputs(NamedTuple):
    """What is fused, and what of it is real.

    Attributes:
        facts, patches, image_rms: the arguments of `FusionAttention`.
        is_real_fact: `[B, L_F]`, false for padding.
        num_patches: `[B]`, comparable patches of each test image.
    """

    facts: Tensor
    patches: ComparisonPatches
    image_rms: Tensor
    is_real_fact: Tensor
    num_patches: Tensor


def learned_facts(queries: Tensor, facts: Tensor) -> Tensor:
    """As many of the `[N, C]` learned queries as there are facts `[B, L_F, C]`, for every row.

    Raises:
        ValueError: more facts than queries.
    """
    batch, num_facts, _ = facts.shape
    if len(queries) < num_facts:
        problem = f"{num_facts} facts, and learned_queries is {len(queries)}"
        raise ValueError(f"{problem}; set it to the largest number of facts of a row")
    return queries[:num_facts].expand(batch, -1, -1).to(facts.dtype)


class FusionLinear(nn.Linear):
    """A linear map of the fusion: it starts out keeping the root mean square of its input.

    A bias starts at random with root mean square one. Language models normalise every token, so without a constant
    direction beside it the size of a difference, whether there is a defect at all, would not reach them.

    A class of its own because transformers initialises a new layer by its type, after construction.
    """

    def reset_parameters(self) -> None:
        """Draw the weight; leaves alone what was loaded from a checkpoint."""
        initialization.normal_(self.weight, std=self.in_features**-0.5)
        if self.bias is not None:
            initialization.normal_(self.bias)


class FusionAttention(nn.Module):
    """Cross-attention from fact embeddings to comparison patches (eq. 2) with a LayerNorm projection head (eq. 9).

    t^s = softmax(t^g W_q (keys W_k)^T / sqrt(d)) values W_v, one output token per fact; then LayerNorm and a linear
    map. Everything inside is relative to the image tokens' root mean square, which differs by orders of magnitude
    between backbones: patches are divided by it and facts brought to one, or attention would start out uniform and
    LayerNorm's epsilon drown small differences; the head's output is multiplied by it, so that the language model
    meets tokens of the size it knows.

    Args:
        hidden_size: C, width of the language model.
        num_heads: attention heads; must divide `hidden_size`.
        learned_queries: so many embeddings of its own ask in the place of the facts, whose words then tell nothing:
            the control for what the facts say. 0: the facts ask.
    """

    def __init__(self, hidden_size: int, num_heads: int, learned_queries: int = 0) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"fusion_num_heads {num_heads} does not divide the hidden size {hidden_size}")
        self.num_heads = num_heads
        self.learned_queries = nn.Parameter(torch.randn(learned_queries, hidden_size)) if learned_queries else None
        self.query = FusionLinear(hidden_size, hidden_size, bias=False)
        self.key = FusionLinear(hidden_size, hidden_size, bias=False)
        self.value = FusionLinear(hidden_size, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size, eps=FUSION_NORM_EPS)
        self.projection = FusionLinear(hidden_size, hidden_size)

    def reset_parameters(self) -> None:
        """Draw the learned queries; leaves alone what was loaded from a checkpoint."""
        if self.learned_queries is not None:
            initialization.normal_(self.learned_queries)

    def forward(self, facts: Tensor, patches: ComparisonPatches, image_rms: Tensor) -> Tensor:
        """Fuse facts with patches.

        Args:
            facts: `[B, L_F, C]` pooled fact embeddings t^g.
            patches: keys, values `[B, M, C]` and mask `[B, M]`.
            image_rms: `[B, 1, 1]` root mean square of each row's image tokens.

        Returns:
            `[B, L_F, C]` comparison-enhanced tokens t^s.

        Raises:
            ValueError: more facts than learned queries.
        """
        value = self._split_heads(self.value(patches.values / image_rms))
        merged = self._attend(facts, patches, image_rms, value).transpose(1, 2).flatten(2)
        projected: Tensor = self.projection(self.norm(merged)) * image_rms
        return projected

    def attention(self, facts: Tensor, patches: ComparisonPatches, image_rms: Tensor) -> Tensor:
        """The weights of eq. 2: the forward's own attention, with each patch as a value that stands for itself.

        Args:
            facts, patches, image_rms: as in `forward`.

        Returns:
            `[B, heads, L_F, M]`; each row sums to one over the real patches.
        """
        count = patches.keys.shape[1]
        each = torch.eye(count, dtype=patches.keys.dtype, device=patches.keys.device)
        return self._attend(facts, patches, image_rms, each.expand(len(facts), self.num_heads, count, count))

    def _attend(self, facts: Tensor, patches: ComparisonPatches, image_rms: Tensor, value: Tensor) -> Tensor:
        if self.learned_queries is not None:
            facts = learned_facts(self.learned_queries, facts)
        query = self._split_heads(self.query(functional.rms_norm(facts, facts.shape[-1:], eps=1e-12)))
        key = self._split_heads(self.key(patches.keys / image_rms))
        mask = patches.mask[:, None, None, :]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def _split_heads(self, states: Tensor) -> Tensor:
        batch, length, width = states.shape
        return states.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)
