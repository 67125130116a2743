"""One command from nothing to a serving hospital with one ward, for a trial; nothing here is for production."""
