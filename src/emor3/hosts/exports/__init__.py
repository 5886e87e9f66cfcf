"""Data folders in the form that other tools read: one module for each of them, behind `catalogue.HOSTS`."""
