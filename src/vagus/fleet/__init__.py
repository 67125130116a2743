"""Devices: who they are, in what state, what they may do next."""
