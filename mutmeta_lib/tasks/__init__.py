"""Encodings of variants, batches of tokens, few-shot tasks, losses and metrics."""
