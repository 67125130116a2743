"""Tests of the operators' acts: roles, and one file for each noun."""
