"""Turns original material into what hfclip ships. It imports hfclip, never the reverse."""
