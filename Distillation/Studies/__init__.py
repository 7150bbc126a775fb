"""Studies: files of experiments, and the code that runs them."""
