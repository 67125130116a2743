"""Our certificates, lists and listeners, judged by software that others wrote."""
