"""Exports a model to other layouts, and publishes a fine-tuned model on the Hub."""
