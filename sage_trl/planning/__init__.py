"""The memory of a training run, found by one step on tensors that have shapes and no memory."""
