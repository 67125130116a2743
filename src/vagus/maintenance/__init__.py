"""Backup and restore of an installation, and the checks of `vagus doctor`."""
