"""Weight files: safetensors, state dicts and archives, read as data. No code in them is run."""
