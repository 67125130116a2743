"""A PKI for medical devices; holds no code of its own."""
