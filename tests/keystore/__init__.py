"""Tests of the rooms that keep private keys."""
