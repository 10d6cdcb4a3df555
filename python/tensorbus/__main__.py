"""The `tensorbus` command."""

import sys

from tensorbus._core import command


def main() -> int:
    """Run the command that the arguments give, and return its exit code."""
    return command([sys.executable, "-P", "-m", "tensorbus"], sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
