"""Private keys: what may be signed with which, and where they rest; never asks why."""
