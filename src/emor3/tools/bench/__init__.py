"""`emor3 bench step`: what a training step costs against TRL, with and without straightforward reflection."""
