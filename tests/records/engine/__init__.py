"""Tests of vagus.records."""
