"""Fine-tunes a CLIP on pictures with labels or captions."""
