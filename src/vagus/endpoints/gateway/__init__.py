"""The gate: lets a validated peer through to what stands behind it; terminates no TLS itself."""
