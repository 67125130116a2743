"""Commands about where keys and data rest: `keystore` and `move-database`."""
