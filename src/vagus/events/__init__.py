"""Followers of the numbered rows that the writer makes: revocations, device changes, ledger entries."""
