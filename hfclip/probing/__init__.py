"""Linear probes: a logistic regression on the embeddings of a collection."""
