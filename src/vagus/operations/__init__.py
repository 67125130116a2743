"""What an operator may do, one module for each noun; the command line, an API and a console call the same functions."""
