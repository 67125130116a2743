"""BuiltListeners to the network: decode, authenticate, one call, encode."""
