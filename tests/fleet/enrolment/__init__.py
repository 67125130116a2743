"""Tests of vagus.fleet."""
