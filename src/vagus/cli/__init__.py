"""The command line; every command parses its arguments, calls one operation and prints."""

try:
    from vagus.cli.application import main
except KeyboardInterrupt:  # Ctrl-C while modules load: exit without a traceback, for no command has begun
    raise SystemExit(130) from None

__all__ = ["main"]
