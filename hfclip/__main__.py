"""Runs the command line as `python -m hfclip`."""

from hfclip.cli import main

main(prog_name="hfclip")
