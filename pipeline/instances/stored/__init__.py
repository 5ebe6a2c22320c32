"""Labels as they are stored between the stages."""
