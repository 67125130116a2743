"""The TLS handshake as bytes in and values out; owns no socket and trusts no peer."""
