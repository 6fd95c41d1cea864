"""`python -m analyses.cli` is the command `circuits`, also under torchrun."""

from analyses.cli.main import main

main()
