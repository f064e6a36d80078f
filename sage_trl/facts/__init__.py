"""Fact sentences: what is known of a kind of part before it is inspected (paper section 3.2)."""
