"""The parts put together: configuration, plan, job, verification."""
