"""Plans compared with an installation and applied to it."""
