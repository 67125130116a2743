"""Cases after public bug reports: each folder's input is recognised by checks and judged by what must hold."""
