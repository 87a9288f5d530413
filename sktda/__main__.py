"""`python -m sktda` is the shell command `sktda`."""

from sktda.cli import entry_point

if __name__ == "__main__":
    entry_point()
