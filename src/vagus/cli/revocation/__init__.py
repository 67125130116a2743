"""`vagus revoke`: its commands, arguments and wording."""
