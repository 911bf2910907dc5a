"""The tokenizer: text to token ids and back, with exactly OpenAI's results."""
