"""Pictures: finding and reading them, and the transforms that prepare them."""
