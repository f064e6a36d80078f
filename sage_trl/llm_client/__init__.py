"""Any OpenAI-compatible server: requests, cache, money, limits. Knows nothing of what it is asked about.

`run_requests` (runner.py) sends requests one by one, `run_batches` (batch.py) through the Batch API; docs/llm_client.md
says how to use them.
"""
