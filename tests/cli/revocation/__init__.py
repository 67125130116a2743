"""Tests of the command line: whole commands in this process, with their exit codes and what they print."""
