"""The TLS listeners of a founded hospital."""
