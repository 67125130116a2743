"""Merkle-log formats: hashes, tiles, signed notes; pure, stores nothing."""
