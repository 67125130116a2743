"""Tests mirror src; simulator/ is a hospital in memory."""
