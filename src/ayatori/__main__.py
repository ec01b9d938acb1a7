"""``python -m ayatori`` is the command ``ayatori``."""

from ayatori.cli import main

if __name__ == "__main__":
    main()
