"""What a training tells: its log, the history of its scores, curves, examples and TensorBoard."""
