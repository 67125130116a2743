"""`vagus cert`: its commands and options."""
