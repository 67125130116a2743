"""Names in certificates: distinguished names, general names, constraints and matching."""
