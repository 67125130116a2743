"""The side that signs: hierarchy, issuance, revocation, publication; never verifies a peer."""
