"""Backup, restore and ceremonies of an installation."""
