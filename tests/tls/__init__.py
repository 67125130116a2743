"""Handshakes in memory, against an authority that lives for one test run."""
