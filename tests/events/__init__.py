"""Tests of vagus.events."""
