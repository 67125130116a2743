"""Path building and path validation (RFC 4158, RFC 5280 section 6)."""
