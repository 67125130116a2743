"""What a serving process is made of: its parts, its listeners, health and metrics; no rule of the field."""
