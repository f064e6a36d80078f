"""Fact-enhanced vision-language models."""
