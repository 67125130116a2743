"""What happened, tamper-evident; knows nothing of why."""
