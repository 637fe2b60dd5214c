"""`python -m mmedge` is `mmedge`."""

from mmedge.cli.app import main

if __name__ == "__main__":
    main()
