"""What was answered is there after any kill: a server that dies at named points, clients that remember, an oracle."""
