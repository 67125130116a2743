"""Tests of vagus.wiring."""
