"""Runs the command line as `python -m hfclip.cli`."""

from hfclip.cli import main

main(prog_name="hfclip")
