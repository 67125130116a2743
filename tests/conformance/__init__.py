"""Suites that others wrote, run through the public verifier: `python -m tests.conformance SUITE_DIR`."""
