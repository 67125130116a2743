"""Attacks on a whole hospital: real command line, real serving process, loopback only."""
