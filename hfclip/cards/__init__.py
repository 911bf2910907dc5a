"""Model cards: writes, reads and renews the README.md of a model."""
