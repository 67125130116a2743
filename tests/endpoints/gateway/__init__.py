"""The relay between real sockets: a gateway, and upstreams that behave and that do not."""
