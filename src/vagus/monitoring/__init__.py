"""Checks of what is published, as a relying party sees it; repairs nothing."""
