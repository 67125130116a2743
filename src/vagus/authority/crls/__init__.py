"""CRLs: their contents, publication, files and cache."""
