"""`python -m emor3` is the command `emor3`, for launchers that start modules."""

from emor3.cli.main import main

if __name__ == "__main__":
    main()
