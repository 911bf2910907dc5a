"""Defines the commands of `python -m conversion`."""

import click

from conversion import cards, check, convert, digits, merges, models_table, pin, publish


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Generate and publish the files that hfclip ships.

    \b
    Examples:
      python -m conversion convert --all out
      python -m conversion check out/ViT-B-32 --against ViT-B-32.pt
      python -m conversion publish --all out --namespace me --dry-run
      python -m conversion cards --check
      python -m conversion merges --check
      python -m conversion models-table --check
      python -m conversion train-digits hfclip/digits
    """  # noqa: D301  # \b is click's mark for text that it does not wrap


main.add_command(convert.main, "convert")
main.add_command(check.main, "check")
main.add_command(publish.main, "publish")
main.add_command(cards.main, "cards")
main.add_command(digits.main, "train-digits")
main.add_command(merges.main, "merges")
main.add_command(models_table.main, "models-table")
main.add_command(pin.main, "pin")

if __name__ == "__main__":
    main()
