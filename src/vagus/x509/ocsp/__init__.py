"""OCSP: messages, building and checks (RFC 6960)."""
