"""Tests, and the parity ledger: `python -m tests.parity DIR`."""
