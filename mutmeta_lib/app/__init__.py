"""What users touch: the commands, notebooks, sweeps and figures."""
