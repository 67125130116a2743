"""The command line; every command is one call into the floors beneath."""

try:
    from vagus.cli.application import main
except KeyboardInterrupt:  # Ctrl-C before there is anything that could be cut off: no traceback for it either
    raise SystemExit(130) from None

__all__ = ["main"]
