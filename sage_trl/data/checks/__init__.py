"""The checks of `validation.check_dataset`, one concern to a file."""
