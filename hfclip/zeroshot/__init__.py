"""Zero-shot classification: labels and templates make a classifier."""
