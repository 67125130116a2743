"""Tests of vagus.wire."""
