"""`python -m vagus`: hands over to the command line; decides nothing."""

from vagus.cli import main

if __name__ == "__main__":
    main()
