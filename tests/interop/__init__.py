"""Our certificates, lists and doors, judged by software that others wrote."""
