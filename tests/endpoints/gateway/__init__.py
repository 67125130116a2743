"""The relay between real sockets: a gate in front, an upstream of every temper behind."""
