"""The device side, against servers on loopback with real sockets and real TLS."""
