"""The page of `hfclip app`: classify pictures, search a collection, compare, in a browser."""
