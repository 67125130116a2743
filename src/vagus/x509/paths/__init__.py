"""Path building and validation (RFC 4158, RFC 5280 section 6): search, rules, name constraints, policies, identity."""
