"""CRLs: their contents, publication, files and shards."""
