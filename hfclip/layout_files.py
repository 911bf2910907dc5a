"""Names of the files that make each layout of a model."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OPEN_CLIP_CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS_FILE = "open_clip_model.safetensors"
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
