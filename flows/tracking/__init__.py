"""What a person sees in Prefect: tasks, artifacts, and the server behind them."""
