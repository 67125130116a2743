"""Listeners on real sockets of the loopback, with clients that behave and clients that do not."""
