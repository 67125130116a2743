"""Merkle-log formats: laws, known answers, other implementations."""
