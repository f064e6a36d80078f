"""Human review of a dataset: a local page, a log of every action, and a new version with what was decided."""
