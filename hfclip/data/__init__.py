"""Data sets: reads pictures, captions and labels from folders, tables, tars and the Hub."""
