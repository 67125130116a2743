"""Sockets, TLS and HTTP framing of the listeners; knows no protocol above HTTP."""
