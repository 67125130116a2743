"""What the listeners speak: each protocol decodes, authenticates, makes one call and encodes."""
