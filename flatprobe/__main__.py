"""`python -m flatprobe`, the command line."""

from flatprobe.cli import main

if __name__ == "__main__":
    main()
