"""`python -m omnifill`."""

from omnifill.cli import main

main()
