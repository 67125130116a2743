"""Tests of vagus.endpoints."""
