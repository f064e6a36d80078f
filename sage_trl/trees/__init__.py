"""Shared-prefix batches: each token of a group is computed once."""
