"""The commands `vagus report` and `vagus gateway log`: what the installation has and saw, for people and programs."""
