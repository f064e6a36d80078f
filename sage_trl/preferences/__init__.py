"""From judge scores to preference pairs (eq. 3-5)."""
