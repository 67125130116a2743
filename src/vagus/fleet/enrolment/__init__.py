"""How a device obtains a certificate, whatever protocol carried its request."""
