"""Rows about revocation: entries, the sequence, plans and selections."""
