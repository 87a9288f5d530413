"""`python -m sktda` is the shell command `sktda`."""

from sktda.cli import main

if __name__ == "__main__":
    main()
