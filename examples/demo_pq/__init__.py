"""A hospital whose signatures no known quantum computer can forge, in one run."""
