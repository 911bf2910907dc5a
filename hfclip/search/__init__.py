"""Search over the embeddings of a collection."""
