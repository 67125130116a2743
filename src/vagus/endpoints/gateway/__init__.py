"""The gateway: relays the traffic of an admitted peer to one upstream; terminates no TLS itself."""
