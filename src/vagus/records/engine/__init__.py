"""The database itself: connections, the writer, statements, tables and migrations; no query of one noun."""
