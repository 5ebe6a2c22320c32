"""Pages and estimates in words and numbers."""
