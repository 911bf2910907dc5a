"""Embeds collections: a plan of inputs, parts on the disk, and what a later run must encode."""
