"""What runs the blocks of a volume and remembers them: stages, ledgers, executors, the run directory."""
