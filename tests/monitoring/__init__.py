"""Tests of what watches the published status from outside."""
