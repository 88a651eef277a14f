"""What a run keeps beside its output, in `OUTPUT.job`: who is building it, and the record of each run."""
