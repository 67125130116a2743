"""Sockets, timers, periodic work and health of a serving process; no rule of the field."""
