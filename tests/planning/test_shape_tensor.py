"""Shape tensors: what comes out of operations, what shares memory, and what is made of values."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sage_trl.planning.shape_tensor import NoFloatingMemory, ShapeTensor, drop_memory, total_bytes


def shape(*size: int, dtype: torch.dtype = torch.float32) -> ShapeTensor:
    return ShapeTensor(torch.empty(size, dtype=dtype, device="meta"))


def test_operations_give_shapes_beside_real_tensors():
    result = functional.linear(torch.ones(5, 3), shape(4, 3)) + torch.ones(4)
    assert isinstance(result, ShapeTensor)
    assert (result.shape, result.dtype, result.device) == ((5, 4), torch.float32, torch.device("cpu"))
    assert isinstance(torch.zeros_like(result), ShapeTensor)
    assert type(torch.arange(3) + 1) is torch.Tensor


def test_an_operation_in_place_gives_its_argument_back():
    tensor = shape(2, 2)
    assert tensor.mul_(2) is tensor
    assert total_bytes([tensor, tensor.view(4), tensor[0]]) == 16
    assert total_bytes([tensor, tensor + 1]) == 32


def test_a_repeated_operation_gives_new_memory_and_the_type_of_its_arguments():
    first, second = shape(2, 3) + 1, shape(2, 3) + 1
    assert total_bytes([first, second]) == 2 * 24
    whole = shape(2, dtype=torch.long)
    assert [(whole + one).dtype for one in (1, 1.0, 1, 1.0)] == [torch.long, torch.float32] * 2
    assert (shape(3, 2).t() * 2).stride() == (1, 2)
    for _ in range(2):
        values, indices = shape(4, 5).max(dim=1)
        assert (values.dtype, indices.dtype, indices.shape) == (torch.float32, torch.long, (4,))
        halves = shape(4, 6).split(3, dim=1)
        assert total_bytes(halves) == 4 * 24


def test_values_are_taken_at_their_largest():
    tensor = shape(2, 3)
    assert tensor[torch.tensor([[True, False, True], [False, False, True]])].shape == (3,)
    assert tensor[tensor > 0].shape == (6,)
    assert tensor.sum().item() == 1.0
    assert bool(tensor.isfinite().all())
    assert shape(2, dtype=torch.long).tolist() == [1, 1]


def test_a_new_place_for_data_is_known_on_the_meta_device_too():
    parameter = nn.Parameter(shape(2, 3, dtype=torch.bfloat16))
    parameter.data = parameter.data.float()
    assert (parameter + 1).dtype == torch.float32
    assert total_bytes([parameter]) == 24


def test_models_lose_their_memory_and_nothing_else():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(3, 4))
    model[2].weight = model[0].weight
    model[2].bias.requires_grad_(False)
    drop_memory(model)
    assert model[2].weight is model[0].weight
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]
    assert all(isinstance(tensor, ShapeTensor) for tensor in (*model.parameters(), *model.buffers()))
    assert total_bytes(model.parameters()) == 4 * (12 + 4 + 4 + 4)
    model[:2](torch.ones(2, 3)).sum().backward()
    assert model[0].weight.grad.shape == (4, 3)


def test_new_tensors_of_floating_point_have_no_memory():
    with NoFloatingMemory():
        tile = torch.zeros(10**9, 10**3)
        assert isinstance(tile, ShapeTensor)
        assert type(torch.zeros(3, dtype=torch.long)) is torch.Tensor
        assert torch.tensor([1.5, 2.5]).tolist() == [1.5, 2.5]
    assert total_bytes([tile]) == 4 * 10**12
