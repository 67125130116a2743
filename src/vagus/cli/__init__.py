"""The command line; every command is one call into the floors beneath."""

from vagus.cli.application import main

__all__ = ["main"]
