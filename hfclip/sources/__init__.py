"""A name and the files of its model: finds, downloads, verifies, inspects and lists them."""
