"""Measures hfclip side by side with its peers. It imports hfclip, never the reverse."""
