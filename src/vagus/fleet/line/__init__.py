"""A maker's line: which devices are meant, what their requests say, and their birth certificates (IEEE 802.1AR)."""
