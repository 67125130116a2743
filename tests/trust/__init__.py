"""Tests of the side that verifies."""
