"""Measures hfclip side by side with its peers. hfclip never imports this package."""
