"""Studies: which methods on which assays at which shots; one table, and estimates from it."""
