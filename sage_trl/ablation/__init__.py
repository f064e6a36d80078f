"""Ablations and sweeps: a plan of arms, each a chain of trainings and an evaluation, and the table they give."""
