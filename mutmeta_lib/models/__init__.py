"""Encoders, embeddings, the predictor, and ranking without labels."""
