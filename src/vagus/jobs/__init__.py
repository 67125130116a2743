"""Periodic tasks and durable jobs of a serving process."""
