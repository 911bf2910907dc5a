"""Turns original CLIP material into what hfclip ships and publishes; imports hfclip, never the reverse."""
