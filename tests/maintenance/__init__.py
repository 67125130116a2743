"""Tests of backups and archives."""
