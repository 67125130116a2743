"""The ledger: entries, publication, verification."""
