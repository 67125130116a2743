"""OCSP: delegated responders, requests and signed responses."""
