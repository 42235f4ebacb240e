"""Records, checksummed files and what a run leaves on disk."""
