"""Sockets, TLS and HTTP on the loopback, with clients that behave and clients that do not."""
