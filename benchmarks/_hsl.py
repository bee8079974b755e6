"""`hsl` of this working tree, whether it is installed or not."""

from hsl.cli import main

if __name__ == "__main__":
    main()
