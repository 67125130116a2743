"""Tests of a maker's line."""
