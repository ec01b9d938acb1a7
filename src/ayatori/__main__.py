"""``python -m ayatori`` is the command ``ayatori``."""

from ayatori.cli import command

if __name__ == "__main__":
    command()
