"""`python -m nanogpt`: the command line."""

from nanogpt.cli.main import main

if __name__ == "__main__":
    main()
