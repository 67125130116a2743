"""Protocol messages: bytes to frozen values and back; no I/O, no decision."""
