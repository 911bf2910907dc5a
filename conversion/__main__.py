"""`python -m conversion`: the workshop's commands."""

import click

from conversion import digits, merges, pin


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make what hfclip ships.

    \b
    Examples:
      python -m conversion merges --check
      python -m conversion train-digits hfclip/digits
    """  # noqa: D301  # \b is click's own mark


main.add_command(digits.main, "train-digits")
main.add_command(merges.main, "merges")
main.add_command(pin.main, "pin")

if __name__ == "__main__":
    main()
