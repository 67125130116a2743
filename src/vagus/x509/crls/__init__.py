"""CRLs: decoding, building and scope (RFC 5280 section 5)."""
