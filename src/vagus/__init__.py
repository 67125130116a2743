"""The X.509 trust platform for the Internet of Bodies; holds no code of its own."""
