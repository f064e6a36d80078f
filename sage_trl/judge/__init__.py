"""Judges: who scores an answer on type, location and logic, 1 to 5 each (paper section 3.3, eq. 3)."""
