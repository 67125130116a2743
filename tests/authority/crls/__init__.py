"""Tests of the rooms that sign."""
