"""What TLS listeners are built from: their kinds, anchors and certificates, and the change to another plan."""
