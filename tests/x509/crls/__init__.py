"""Certificates, requests, keys, lints, paths."""
