"""SAGE on TRL."""
