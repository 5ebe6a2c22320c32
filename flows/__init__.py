"""What a person starts: the command line, and the Prefect flow with its pages."""
