"""Names in certificates, decoded once: distinguished names, general names, hardware modules."""
