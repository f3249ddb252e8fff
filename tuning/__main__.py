"""`python -m tuning` is `skeltune`."""

from tuning.cli import main

if __name__ == "__main__":
    main()
