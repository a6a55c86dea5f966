"""Public benchmarks by a suite in an environment of its own; its logs read, paired and tested."""
